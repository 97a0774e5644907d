//! Chats: what a person types, pastes and interrupts, in a terminal of the tests.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::common::{bitnet, bitnet_reading, teacher, text};
use crate::pty::Terminal;

const INTERRUPT: &str = "\x03";
const END: &str = "\x04";
const QUESTION: &str = "What is the capital of gilded inlet?";
/// An answer that goes on until the context is full: the grammar forbids an earlier end.
const ENDLESS: [&str; 6] = ["-n", "100000", "--temp", "5", "--json", r#"{"type":"string","minLength":1000000}"#];
const LONG_QUESTION: &str = "And one more long question about it, please?";
/// A context for that question and no second one.
const FULL: [&str; 4] = ["-n", "40", "-c", "40"];

/// A chat with the teacher, at its first prompt.
fn chat(more: &[&str]) -> Terminal {
    chat_in("xterm", [80, 24], more)
}

fn chat_in(term: &str, size: [u16; 2], more: &[&str]) -> Terminal {
    let teacher = teacher();
    let sampling: &[&str] = if more.contains(&"--temp") { &[] } else { &["--temp", "0"] };
    let args = [&["run", &teacher], sampling, more].concat();
    let mut terminal = Terminal::start(env!("CARGO_BIN_EXE_bitnet"), &args, term, size);
    if term == "xterm" {
        terminal.prompt();
    } else {
        terminal.wait("> ");
    }
    terminal
}

/// Leaves a chat at its prompt, and returns everything that the terminal was sent.
fn leave(terminal: Terminal) -> String {
    terminal.send(END);
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(0), "{all}");
    all
}

/// Sends a message, and returns what is shown up to the end of its answer; the next prompt is there then.
fn ask(terminal: &mut Terminal, message: &str) -> String {
    terminal.send(format!("{message}\r"));
    let shown = terminal.wait("ended by");
    terminal.prompt();
    shown
}

/// A chat whose context is full after one turn.
fn full_chat(more: &[&str]) -> Terminal {
    let mut terminal = chat(&[&FULL[..], more].concat());
    ask(&mut terminal, LONG_QUESTION);
    terminal
}

/// The answer that the same message on standard input gets, as a terminal shows it.
fn piped_answer(message: impl Into<Vec<u8>>, more: &[&str]) -> String {
    let teacher = teacher();
    bitnet_reading(message, ["run", &teacher, "--temp", "0"].iter().chain(more)).done().trim_end().replace('\n', "\r\n")
}

/// The number before `word` in the last line of `shown` that has it.
fn number_before(shown: &str, word: &str) -> usize {
    let before = shown.rsplit_once(word).unwrap_or_else(|| panic!("no {word:?} in {shown:?}")).0;
    before.split_whitespace().next_back().unwrap().parse().unwrap_or_else(|_| panic!("{shown:?}"))
}

/// `shown` without the orders that move the cursor.
fn without_orders(shown: &str) -> String {
    let mut out = String::new();
    let mut parts = shown.split("\x1b[");
    out.push_str(parts.next().unwrap());
    parts.for_each(|part| out.push_str(&part[part.find(|c: char| c.is_alphabetic()).map_or(0, |at| at + 1)..]));
    out
}

#[test]
fn a_paste_with_empty_lines_is_one_message_and_the_chat_goes_on() {
    let message = "What is the capital of gilded inlet?\n\nAnd its river?\nName both.";
    let want = piped_answer(message, &["-n", "20"]);
    let typed = message.replace('\n', "\r");
    let windows = message.replace('\n', "\r\n");
    for sent in [
        format!("{typed}\r"),
        format!("{message}\n"),
        format!("{windows}\r\n"),
        format!("\x1b[200~{typed}\x1b[201~\r"),
        format!("\x1b[200~{windows}\x1b[201~\r"),
    ] {
        let mut terminal = chat(&["-n", "20"]);
        terminal.send(sent.as_str());
        let shown = terminal.wait("ended by");
        assert!(shown.contains(&want), "{sent:?}: {want:?} in {shown:?}");
        terminal.prompt();
        assert_eq!(leave(terminal).matches("ended by").count(), 1, "{sent:?}");
    }
}

#[test]
fn a_paste_of_ten_thousand_lines_is_one_message_with_and_without_marks() {
    let paste: String = (0..10_000).map(|n| format!("line {n} of a long text\n")).collect();
    let teacher = teacher();
    let refused = bitnet_reading(paste.trim_end(), ["run", &teacher]).refusal();
    let tokens = number_before(&refused, " tokens do not fit");
    assert!(tokens > 50_000, "{refused}");
    let typed = paste.trim_end().replace('\n', "\r");
    for sent in [format!("\x1b[200~{typed}\x1b[201~\r"), format!("{typed}\r")] {
        let mut terminal = chat(&["-n", "4"]);
        terminal.send(sent);
        let shown = terminal.wait("larger context (-c)");
        assert_eq!(number_before(&shown, " tokens with its template"), tokens);
        // Whatever the terminal repeats, the paste is not written out once per key.
        assert!(shown.len() < 1 << 20, "{} bytes", shown.len());
        terminal.prompt();
        ask(&mut terminal, "Hello");
        leave(terminal);
    }
}

#[test]
fn control_characters_of_a_paste_are_shown_as_pictures_and_reach_the_model() {
    let hostile = "a\x1b]0;title\x07b\x1b[2J\x03\x04\x1a\x00\u{9b}31mc";
    let want = piped_answer(hostile, &["-n", "12"]);
    let mut terminal = chat(&["-n", "12"]);
    terminal.send(format!("\x1b[200~{hostile}\x1b[201~"));
    let shown = terminal.wait("mc");
    assert!(shown.contains("a\u{241b}]0;title\u{2407}b\u{241b}[2J\u{2403}\u{2404}\u{241a}\u{2400}"), "{shown:?}");
    terminal.send("\r");
    assert!(terminal.wait("ended by").contains(&want));
    terminal.prompt();
    // Without marks, on several lines: nothing of it stops or ends the chat.
    ask(&mut terminal, &format!("one\r{hostile}\rtwo"));
    let all = leave(terminal);
    for order in ["\x1b]", "\x07", "\x1b[2J", "\x00", "\u{9b}"] {
        assert!(!all.contains(order), "{order:?} in {all:?}");
    }
}

#[test]
fn bytes_that_are_no_text_do_not_end_the_chat() {
    let mut terminal = chat(&["-n", "4"]);
    terminal.send(*b"caf\xe9 \xff\xfe au lait\r");
    let shown = terminal.wait("ended by");
    assert!(shown.contains("caf\u{fffd} \u{fffd}\u{fffd} au lait"), "{shown:?}");
    terminal.prompt();
    leave(terminal);
}

#[test]
fn nothing_typed_or_pasted_during_an_answer_reaches_the_shell() {
    let mut terminal = chat(&ENDLESS);
    terminal.send(format!("{QUESTION}\r"));
    terminal.wait("\r\n");
    // More than the terminal itself keeps: the program has to read it.
    let typed = "rm -rf everything\r".repeat(2000);
    terminal.send(format!("{typed}\x1b[200~rm -rf all\r\x1b[201~{INTERRUPT}"));
    terminal.wait("ended by interrupt");
    terminal.prompt();
    leave(terminal);
}

#[test]
fn a_message_typed_during_an_answer_is_sent_after_it() {
    let mut terminal = chat(&["-n", "8"]);
    terminal.send(format!("{QUESTION}\r"));
    terminal.wait("\r\n");
    terminal.send("And its river?");
    terminal.wait("ended by");
    terminal.wait("And its river?");
    terminal.send("\r");
    terminal.wait("ended by");
    terminal.prompt();
    leave(terminal);
}

#[test]
fn ctrl_c_stops_the_answer_and_the_chat_goes_on() {
    let mut terminal = chat(&ENDLESS);
    terminal.send(format!("{QUESTION}\r"));
    terminal.wait(&format!("{QUESTION}\r\x1b["));
    terminal.wait("\r\n");
    terminal.send(INTERRUPT);
    let shown = terminal.wait("ended by");
    terminal.wait("interrupt");
    assert!(number_before(&shown, " tokens at") < 4000, "{shown}");
    terminal.prompt();
    leave(terminal);
}

#[test]
fn ctrl_c_stops_the_reading_of_a_prompt() {
    let mut terminal = chat(&["-n", "8"]);
    // In the same moment as the message, so that it is there before the first chunk.
    terminal.send(format!("{}\r{INTERRUPT}", "long ".repeat(300)));
    let shown = terminal.wait("ended by interrupt");
    assert!(shown.contains("prompt 0 tokens") && shown.contains("answer 0 tokens"), "{shown}");
    terminal.prompt();
    let want = piped_answer(QUESTION, &["-n", "8"]);
    assert!(ask(&mut terminal, QUESTION).contains(&want), "the turn without an answer is forgotten");
    leave(terminal);
}

#[test]
fn ctrl_c_at_an_empty_prompt_asks_and_leaves() {
    let mut terminal = chat(&[]);
    terminal.send(INTERRUPT);
    terminal.wait("press Ctrl-C again to leave");
    terminal.prompt();
    // A key in between takes it back.
    terminal.send("x");
    terminal.wait("> x");
    terminal.send(INTERRUPT);
    terminal.prompt();
    terminal.send(INTERRUPT);
    terminal.wait("press Ctrl-C again to leave");
    terminal.prompt();
    terminal.send(INTERRUPT);
    assert_eq!(terminal.end().0.code(), Some(130));
    // Both presses at once.
    let terminal = chat(&[]);
    terminal.send([INTERRUPT, INTERRUPT].concat());
    assert_eq!(terminal.end().0.code(), Some(130));
}

#[test]
fn ctrl_c_clears_a_line_and_ctrl_d_leaves_at_an_empty_one() {
    let mut terminal = chat(&[]);
    terminal.send("half a question");
    terminal.wait("half a question\r");
    terminal.send(END);
    terminal.send(INTERRUPT);
    terminal.prompt();
    let all = leave(terminal);
    assert!(!all.contains("ended by") && !all.contains("press Ctrl-C"), "{all}");
}

#[test]
fn ctrl_c_before_the_first_prompt_ends_the_program() {
    let mut terminal = Terminal::bitnet(&["run", &teacher()]);
    terminal.wait("\x1b[?2004h");
    terminal.send("typed while it loads");
    terminal.send(INTERRUPT);
    // A model that is loaded already has a prompt, where the line is cleared first.
    while terminal.prompt_or_end() {
        terminal.send(INTERRUPT);
    }
    assert_eq!(terminal.end().0.code(), Some(130));
}

/// Ctrl-Z stops a program whose shell can continue it; here there is none, and the chat goes on.
#[test]
fn ctrl_z_gives_the_terminal_back_and_takes_it_again() {
    let mut terminal = chat(&["-n", "4"]);
    terminal.send("\x1a");
    terminal.wait("\x1b[?2004l");
    terminal.wait("\x1b[?2004h");
    terminal.prompt();
    ask(&mut terminal, "Hi");
    leave(terminal);
}

#[test]
fn a_chat_that_its_shell_continues_draws_its_line_again_and_erases_nothing() {
    let run = format!("'{}' run '{}' -n 4", env!("CARGO_BIN_EXE_bitnet"), teacher());
    let command = format!("set -m; {run}; echo in the shell; fg");
    let mut terminal = Terminal::start("sh", &["-c", &command], "xterm", [80, 24]);
    terminal.prompt();
    terminal.send("one\x1b\rtwo");
    terminal.wait("\r\ntwo\r");
    terminal.send("\x1a");
    terminal.wait("in the shell\r\n");
    let shown = terminal.wait("> one\r\r\ntwo\r\x1b[3C");
    assert!(!shown.contains("\x1b[1A"), "the rows of the shell stay: {shown:?}");
    terminal.send(INTERRUPT);
    terminal.prompt();
    let all = leave(terminal);
    let continued = all.split_once("in the shell").unwrap().1;
    assert_eq!(continued.matches("> one").count(), 1, "{all:?}");
}

#[test]
fn signals_that_end_the_program_restore_the_terminal() {
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut terminal = chat(&ENDLESS);
        terminal.send("typed, not sent");
        terminal.wait("not sent\r");
        terminal.signal(signal);
        assert_eq!(terminal.end().0.signal(), Some(signal.as_raw()));
        let mut terminal = chat(&ENDLESS);
        terminal.send(format!("{QUESTION}\r"));
        terminal.wait("\r\n");
        terminal.signal(signal);
        assert_eq!(terminal.end().0.signal(), Some(signal.as_raw()));
    }
}

#[test]
fn a_full_context_offers_to_drop_the_oldest_turns_and_goes_on() {
    for (reply, goes_on) in [("\r", true), ("y\r", true), ("n\r", false), (INTERRUPT, false)] {
        let mut terminal = full_chat(&[]);
        terminal.send(format!("{LONG_QUESTION}\r"));
        let shown = terminal.wait("and go on?");
        assert!(shown.contains("the context of 40 tokens is full"), "{shown}");
        assert!(number_before(&shown, ": drop the oldest turn") > 35, "{shown}");
        terminal.send(reply);
        terminal.wait(if goes_on { "ended by" } else { "not sent" });
        terminal.prompt();
        if !goes_on {
            terminal.send("\x1b[A");
            terminal.wait(&format!("{LONG_QUESTION}\r"));
            terminal.send(INTERRUPT);
            terminal.prompt();
        }
        leave(terminal);
    }
}

#[test]
fn keys_from_before_a_question_do_not_answer_it() {
    // Ctrl-D leaves at the next prompt.
    let mut terminal = full_chat(&[]);
    terminal.send(format!("{LONG_QUESTION}\r{END}"));
    terminal.wait("and go on?");
    terminal.send("n\r");
    terminal.wait("not sent");
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(0), "{all}");
    // Ctrl-C in the same moment as the message is the reply.
    let mut terminal = full_chat(&[]);
    terminal.send(format!("{LONG_QUESTION}\r{INTERRUPT}"));
    terminal.wait("not sent");
    terminal.prompt();
    leave(terminal);
}

#[test]
fn another_message_takes_the_place_of_one_that_does_not_fit_and_the_system_message_stays() {
    let system = ["--system", "Be brief."];
    let mut terminal = full_chat(&system);
    for _ in 0..3 {
        terminal.send(format!("{LONG_QUESTION}\r"));
        terminal.wait("and go on?");
    }
    let dropped = ask(&mut terminal, "");
    let alone = piped_answer(LONG_QUESTION, &[&FULL[..], &system].concat());
    assert!(dropped.contains(&alone), "{alone:?} in {dropped:?}");
    leave(terminal);
}

#[test]
fn a_message_that_is_longer_than_the_context_is_refused_with_both_numbers() {
    let mut terminal = chat(&["-n", "8", "-c", "64"]);
    terminal.send(format!("{}\r", "many words ".repeat(60)));
    let shown = terminal.wait("larger context (-c)");
    assert!(number_before(&shown, " tokens with its template") > 64 && shown.contains("context of 64"), "{shown}");
    terminal.prompt();
    ask(&mut terminal, "Hi");
    leave(terminal);
}

#[test]
fn a_narrow_window_and_changes_of_its_size_break_no_row() {
    let typed = "a line that is far longer than twenty columns, typed key by key";
    let mut terminal = chat_in("xterm", [20, 6], &["-n", "8"]);
    for key in typed.chars() {
        terminal.send(key.to_string());
    }
    let shown = terminal.wait("y by key\r");
    for row in without_orders(&shown).split("\r\n").flat_map(|row| row.split('\r')) {
        assert!(row.chars().count() < 20, "{row:?}");
    }
    terminal.resize(50, 10);
    terminal.wait("a line that is far longer than twenty columns, \r\r\ntyped key by key\r");
    terminal.resize(15, 10);
    terminal.wait("is far longer \r\r\nthan twenty co\r\r\nlumns, typed k\r\r\ney by key\r");
    terminal.send("\r");
    terminal.wait("\r\n");
    terminal.resize(100, 30);
    assert!(terminal.wait("ended by").contains(&piped_answer(typed, &["-n", "8"])));
    terminal.prompt();
    leave(terminal);
}

#[test]
fn a_terminal_that_cannot_be_drawn_on_gets_lines_and_no_orders() {
    let message = "What is the capital of gilded inlet?\nAnd its river?";
    let want = piped_answer(message, &["-n", "20"]);
    let mut terminal = chat_in("dumb", [80, 24], &["-n", "20"]);
    terminal.send(format!("{message}\n"));
    let shown = terminal.wait("ended by");
    assert!(shown.contains(&want), "{want:?} in {shown:?}");
    terminal.wait("> ");
    terminal.send(INTERRUPT);
    terminal.wait("press Ctrl-C again to leave");
    terminal.wait("> ");
    terminal.send(INTERRUPT);
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(130), "{all}");
    let mut terminal = chat_in("dumb", [80, 24], &ENDLESS);
    terminal.send(format!("{QUESTION}\n"));
    terminal.wait(QUESTION);
    terminal.wait("\r\n");
    // The answer has begun: a line before that would be part of the message.
    terminal.wait_for_more();
    terminal.send("typed ahead\n");
    terminal.send(INTERRUPT);
    terminal.wait("ended by interrupt");
    terminal.wait("> ");
    let all = all + &leave(terminal);
    assert!(!all.contains('\x1b'), "{all:?}");
}

#[test]
fn a_reader_that_leaves_ends_a_chat_quietly() {
    let run = format!("'{}' run '{}' -n 50 --temp 0", env!("CARGO_BIN_EXE_bitnet"), teacher());
    let command = format!("{{ {run}; echo \"ended with $?\" >&2; }} | head -c 3");
    let mut terminal = Terminal::start("sh", &["-c", &command], "xterm", [80, 24]);
    terminal.prompt();
    // The pipe takes what is written until its reader has left.
    loop {
        terminal.send(format!("{QUESTION}\r"));
        if !terminal.prompt_or_end() {
            break;
        }
    }
    let (_, all) = terminal.end();
    assert!(all.contains("ended with 0\r\n") && !all.contains("error"), "{all}");
}

#[test]
fn ctrl_c_ends_other_verbs_at_once() {
    let teacher = teacher();
    for args in [
        &["eval", "fidelity", "--text", "-", "--teacher", &teacher][..],
        &["tokenize", "-m", &teacher, "--file", "-"],
        &["run", &teacher, "-f", "-"],
        &["run", &teacher, "-p", QUESTION, "-n", "100000", "--temp", "5", "--top-p", "1"],
    ] {
        let mut terminal = Terminal::bitnet(args);
        if args.contains(&"-p") {
            terminal.wait_for_more();
        }
        // The others read the terminal, and have no end but the interrupt.
        terminal.send(INTERRUPT);
        let (status, all) = terminal.end();
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{args:?}: {all}");
    }
}

#[test]
fn ctrl_c_leaves_no_half_file_in_the_place_of_an_output() {
    let dir = tempfile::tempdir().unwrap();
    let (out, teacher) = (dir.path().join("out.gguf"), teacher());
    let mut terminal = Terminal::bitnet(&["quantize", "-m", &teacher, "-o", text(&out)]);
    // The bar of its progress.
    terminal.wait("[");
    terminal.send(INTERRUPT);
    let (status, all) = terminal.end();
    assert_eq!(out.exists(), status.success(), "{status}: {all}");
    if !status.success() {
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{all}");
        bitnet(["quantize", "-m", &teacher, "-o", text(&out)]).done();
    }
    bitnet(["verify", text(&out)]).done();
}

#[test]
fn commands_change_the_conversation_and_keep_it_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.json");
    let mut terminal = chat(&["-n", "4"]);
    let command = |terminal: &mut Terminal, line: &str, answer: &str| {
        terminal.send(format!("{line}\r"));
        if !answer.is_empty() {
            terminal.wait(answer);
        }
        terminal.prompt();
    };
    command(&mut terminal, "/help", "/save FILE");
    command(&mut terminal, "/system", "there is no system message");
    command(&mut terminal, "/system Be brief.", "");
    command(&mut terminal, "/system", "system message: Be brief.");
    ask(&mut terminal, QUESTION);
    command(&mut terminal, "/stats", "1 turn, ");
    command(&mut terminal, &format!("/save {}", file.display()), "1 turn saved in ");
    command(&mut terminal, "/clear", "");
    command(&mut terminal, "/stats", "0 turns");
    command(&mut terminal, &format!("/load {}", file.display()), "1 turn taken from ");
    command(&mut terminal, "/think maybe", "write /think on, /think off or /think auto");
    command(&mut terminal, "/frobnicate", "there is no command /frobnicate");
    command(&mut terminal, "/load no/such/file", "error: ");
    ask(&mut terminal, " /message");
    leave(terminal);
    let saved: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let roles: Vec<&str> = saved.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!((saved[0]["content"].as_str(), saved[1]["content"].as_str()), (Some("Be brief."), Some(QUESTION)));
}

#[test]
fn a_later_chat_finds_the_messages_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history");
    let more = ["-n", "4", "--history", text(&file)];
    let mut terminal = chat(&more);
    ask(&mut terminal, "an older one");
    ask(&mut terminal, QUESTION);
    leave(terminal);
    let mut terminal = chat(&more);
    terminal.send("\x1b[A");
    terminal.wait(QUESTION);
    terminal.send("\r");
    terminal.wait("ended by");
    terminal.prompt();
    leave(terminal);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept, format!("\"an older one\"\n\"{QUESTION}\"\n"), "each once");

    std::fs::write(&file, "no JSON\n").unwrap();
    let teacher = teacher();
    let (status, all) =
        Terminal::start(env!("CARGO_BIN_EXE_bitnet"), &[&["run", &*teacher], &more[..]].concat(), "xterm", [80, 24])
            .end();
    assert_eq!(status.code(), Some(1), "{all}");
    assert!(all.contains("line 1 of"), "{all}");
}

#[test]
fn a_paste_without_an_end_mark_ends_when_the_terminal_is_silent() {
    let mut terminal = chat(&["-n", "4"]);
    terminal.send("\x1b[200~no end of this");
    terminal.wait("no end of this");
    terminal.send(INTERRUPT);
    terminal.prompt();
    leave(terminal);
}
