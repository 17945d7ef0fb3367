//! Connections to virtual addresses, steered to sockets that are bound elsewhere.

use std::io::{Read, Write};

use gateway_l4::Attach;

use crate::wire::{VIP, Wire, Workers, plan, socket_address};

#[test]
fn a_virtual_address_reaches_a_loopback_socket_and_is_its_local_address() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(2);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(
            &[(Some(VIP[0]), 443, &[]), (Some(VIP[1]), 443, &[])],
            &VIP,
        ))
        .await
        .expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        println!("{:#?}", l4.status().expect("status"));
        for vip in VIP {
            let mut stream = wire
                .client
                .connect(socket_address(vip, 443))
                .expect("a connection");
            stream.write_all(b"x").expect("write");
            println!("{:?}", stream.peer_addr());
        }
        println!("{:#?}", l4.counters().expect("counters"));
        let _ = workers.sockets().count();
        l4.detach().await.expect("detach");
        let _ = std::io::empty().read(&mut []);
    });
}
