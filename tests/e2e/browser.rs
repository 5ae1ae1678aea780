//! `ringway demo` and its chat page in a real browser: headless Chromium, two tabs.

use crate::harness::{Process, peer, program, scratch, send_signal};
use crate::wire::DEADLINE;

const CHROMIUM: &str = "/usr/bin/chromium";

#[test]
fn two_tabs_chat_on_the_demo_page() {
    let mut command = std::process::Command::new(program());
    command.args(["demo", "--listen", "127.0.0.1:0", "--log-level", "debug"]).env("NO_COLOR", "1");
    let mut demo = Process::start(command);
    demo.line(&["ready"]);
    let line = demo.line(&["http://"]);
    let url = format!("http://{}", line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap());

    let profile = scratch("chromium");
    let mut browser = peer("browser.js", &[CHROMIUM, profile.to_str().unwrap(), &url]);
    browser.line_within(DEADLINE * 6, &["ok"]);

    send_signal(demo.pid(), "TERM");
    assert_eq!(demo.wait_for(DEADLINE * 3).code(), Some(0));
}
