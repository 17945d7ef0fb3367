//! Which frontend an address, port and protocol belong to.

use gateway_common::frontend::{ANY_PORT, Address};
use gateway_common::{Control, FrontendKey, FrontendValue};

use crate::maps;

/// A frontend and whether it was found by its address or as one on every address.
pub struct Found {
    pub value: FrontendValue,
    pub any_address: bool,
}

/// The frontend of an address, else the one of this port on every address.
#[inline(always)]
pub fn find(control: Control, address: Address, port: u16, protocol: u8) -> Option<Found> {
    if port == ANY_PORT {
        return None;
    }
    let mut key = FrontendKey {
        address,
        port,
        protocol,
        half: control.tables(),
    };
    if let Some(value) = maps::frontend(&key) {
        return Some(Found {
            value,
            any_address: false,
        });
    }
    // `ANY_ADDRESS`.
    for word in &mut key.address {
        // One by one, as in `Flow::unknown`.
        // SAFETY: a reference is valid to be written.
        unsafe { core::ptr::from_mut(word).write_volatile(0) };
    }
    maps::frontend(&key).map(|value| Found {
        value,
        any_address: true,
    })
}

/// The entry of a whole address that is all ours.
#[inline(always)]
pub fn whole_address(control: Control, address: Address, protocol: u8) -> Option<FrontendValue> {
    maps::frontend(&FrontendKey {
        address,
        port: ANY_PORT,
        protocol,
        half: control.tables(),
    })
}
