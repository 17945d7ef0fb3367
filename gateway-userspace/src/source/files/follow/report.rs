//! What there is to say about a followed tree.

use std::path::Path;
use std::sync::Arc;

use super::super::claims::Placed;
use super::super::document::Item;
use super::Follower;
use crate::source::{Finding, Held, Origin, Report};

impl Follower {
    /// What there is to say about the tree.
    pub fn report(&self) -> Report {
        let relative = |path: &Path| match path.strip_prefix(&self.root) {
            Ok(below) if below.as_os_str().is_empty() => path.to_owned(),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        };
        let below = |mut findings: Vec<Finding>| {
            for finding in &mut findings {
                finding.file = finding.file.as_deref().map(relative);
            }
            findings.sort();
            findings
        };
        let held = self.claims.held();
        Report {
            origin: Origin::Directory {
                path: self.root.clone(),
                files: self.claims.file_count(),
            },
            unreadable: self.unreadable.get(&self.root).cloned(),
            objects: self.claims.object_count(),
            findings: below(self.findings()),
            doubts: below(self.doubts()),
            held: held
                .map(|(path, d)| Held {
                    object: d.object.clone(),
                    file: Some(relative(path)),
                })
                .collect(),
            has_workloads: self.claims.has_workloads(),
        }
    }

    /// Fields that nobody reads.
    fn doubts(&self) -> Vec<Finding> {
        let documents = self.claims.doubtful().flat_map(|(path, documents)| {
            let numbered = documents.iter().zip(1..);
            numbered.map(move |(placed, number)| (path, placed, number))
        });
        documents
            .flat_map(|(path, placed, number)| {
                let objects = placed.document.objects();
                objects.flat_map(move |decoded| {
                    decoded.unread.iter().map(move |problem| Finding {
                        file: Some(path.to_path_buf()),
                        line: Some(placed.line),
                        document: Some(number),
                        object: Some(decoded.object.clone()),
                        message: format!("{}: {}", problem.path, problem.message),
                    })
                })
            })
            .collect()
    }

    fn findings(&self) -> Vec<Finding> {
        let unreadable = self
            .unreadable
            .iter()
            .filter(|(path, _)| **path != self.root);
        let unreadable = unreadable.map(|(path, message)| Finding {
            file: Some(path.clone()),
            line: None,
            document: None,
            object: None,
            message: message.clone(),
        });
        let broken = self.claims.broken().flat_map(|(path, documents)| {
            documents
                .iter()
                .zip(1..)
                .flat_map(move |(placed, number)| faults(path, placed, number))
        });
        let twice = self
            .claims
            .duplicates()
            .into_iter()
            .map(|duplicate| Finding {
                file: Some(duplicate.loser.path.to_path_buf()),
                line: Some(duplicate.loser.line),
                document: None,
                message: format!(
                    "is ignored, for {}:{} says this object first; remove one of them",
                    duplicate
                        .winner
                        .path
                        .strip_prefix(&self.root)
                        .unwrap_or(&duplicate.winner.path)
                        .display(),
                    duplicate.winner.line
                ),
                object: Some(duplicate.object),
            });
        unreadable.chain(broken).chain(twice).collect()
    }
}

fn faults<'a>(
    path: &'a Arc<Path>,
    placed: &'a Placed,
    number: usize,
) -> impl Iterator<Item = Finding> + 'a {
    placed.document.items.iter().filter_map(move |item| {
        let Item::Fault(fault) = item else {
            return None;
        };
        Some(Finding {
            file: Some(path.to_path_buf()),
            line: Some(placed.line + fault.line.map_or(0, |line| line.saturating_sub(1))),
            document: Some(number),
            object: fault.object.clone(),
            message: fault.message.clone(),
        })
    })
}
