//! Bytes that lie in no buffer on loan, as a record layer brings them: what is kept of them is copied.

use ringway::op::Group;

use super::*;
use crate::stage::{ANSWER, REQUEST, config};

#[test]
fn handshake_and_frames_come_through() {
    let mut stage = Stage::new(config(1), 4);
    let client = stage.accept();
    let backend = client.peer();
    let (first, rest) = REQUEST.split_at(30);
    stage.give_unlent(client, first, 52);
    stage.give_unlent(client, rest, rest.len() as u32 + 22);
    stage.connected(backend, Ok(()));
    stage.give_unlent(backend, ANSWER, 200);
    assert_eq!(stage.out(client), ANSWER);
    stage.out(backend);
    let ask = c(TEXT, b"a question");
    // A header in two pieces, too.
    for cut in [ask.len(), 1, 3] {
        stage.give_unlent(client, &ask[..cut], 50);
        if cut < ask.len() {
            stage.give_unlent(client, &ask[cut..], 50);
        }
        assert_eq!(stage.out(backend), ask, "{cut}");
    }
    // While a send is in flight it waits in memory of its own.
    stage.stick(client, Some(0));
    let answers = [s(TEXT, b"one"), s(TEXT, b"two")];
    stage.give_unlent(backend, &answers[0], 30);
    stage.give_unlent(backend, &answers[1], 30);
    stage.stick(client, None);
    stage.flush();
    assert_eq!(stage.out(client), answers.concat());
    assert_eq!(stage.relay.leases(), 0);
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}

#[test]
fn bulk_is_known_by_what_came_on_the_wire() {
    let config = config(1);
    let small = config.buffers.small_bytes as u32;
    let mut stage = Stage::new(config, 4);
    let (client, backend) = stage.open();
    let message = s(0x82, &[7; 1000]);
    for _ in 0..4 {
        stage.give_unlent(backend, &message, small);
        stage.out(client);
    }
    assert_eq!(stage.group(backend), Some(Group::BULK), "its records fill whole buffers");
    end(&mut stage, client);
    assert_over(&stage, [client, backend]);
}
