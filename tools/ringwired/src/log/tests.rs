//! What comes out of the log, and what is said of the rest.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use super::*;

/// A place for lines.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `say` leaves in a file.
fn lines(filter: &str, format: Format, say: impl FnOnce(&mut LeftOut)) -> Vec<String> {
    lines_in(Place::File, filter, format, say)
}

fn lines_in(place: Place, filter: &str, format: Format, say: impl FnOnce(&mut LeftOut)) -> Vec<String> {
    let page = Page::default();
    let (writer, guard) = NonBlockingBuilder::default().finish(page.clone());
    let mut left_out =
        LeftOut { limit: Arc::new(Limit::new(limit::MOST_LINES)), lost: writer.error_counter(), said: 0 };
    let subscriber = subscriber(EnvFilter::new(filter), format, writer, place, left_out.limit.clone());
    tracing::subscriber::with_default(subscriber, || say(&mut left_out));
    drop(guard);
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn complain(port: &str, number: u32) {
    tracing::warn!(port, queue = 1, "ring stopped: index {number} is odd");
}

const MOST: usize = limit::MOST_LINES as usize;

#[test]
fn a_cause_is_spoken_of_so_often_and_then_counted() {
    let lines = lines("info", Format::Text, |left_out| {
        (0..25).for_each(|number| complain("vm1", number));
        (0..3).for_each(|number| complain("vm2", number));
        left_out.say(Instant::now());
        left_out.say(Instant::now() + limit::WINDOW);
        complain("vm1", 99);
        left_out.say_all();
    });
    let of = |port: &str| {
        let named = format!("port=\"{port}\"");
        lines.iter().filter(|line| line.contains(&named)).collect::<Vec<_>>()
    };
    let (vm1, vm2) = (of("vm1"), of("vm2"));
    assert_eq!((vm1.len(), vm2.len(), lines.len()), (MOST + 2, 3, MOST + 5), "{lines:#?}");
    let summary = vm1[MOST];
    assert!(summary.contains(" WARN "), "{summary}");
    assert!(
        summary.contains("15 more lines like this suppressed: ring stopped: index 24 is odd"),
        "{summary}"
    );
    assert!(vm1[MOST + 1].contains("index 99 is odd"), "a new window: {lines:#?}");
}

#[test]
fn other_texts_and_verbose_levels_are_not_held_back() {
    let lines = lines("trace", Format::Text, |left_out| {
        for cause in ["a", "b", "c"] {
            (0..MOST).for_each(|_| tracing::info!("not opened: {cause}"));
        }
        (0..50).for_each(|_| tracing::debug!("again"));
        left_out.say_all();
    });
    assert_eq!(lines.len(), 3 * MOST + 50, "{lines:#?}");
}

/// However many causes there are, what is known of them has an end.
#[test]
fn too_many_causes_are_one() {
    let lines = lines("info", Format::Text, |left_out| {
        (0..5000u32).for_each(|number| {
            // Digits alone would be the same cause.
            let name: String = number.to_string().chars().map(|c| (c as u8 + 49) as char).collect();
            complain(&name, 0);
        });
        left_out.say_all();
    });
    let (summaries, lines): (Vec<&String>, Vec<&String>) =
        lines.iter().partition(|line| line.contains("suppressed"));
    assert_eq!((lines.len(), summaries.len()), (1024 + MOST, 1));
    assert!(
        summaries[0].contains(&format!("{} more lines like this suppressed", 5000 - lines.len())),
        "{summaries:?}"
    );
}

#[test]
fn a_line_of_json_has_what_it_is_about() {
    let lines = lines("info", Format::Json, |left_out| {
        (0..11).for_each(|number| complain("vm1", number));
        left_out.say_all();
    });
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), MOST + 1);
    let first = &lines[0];
    assert_eq!(first["message"], "ring stopped: index 0 is odd");
    assert_eq!(
        (&first["level"], &first["port"], &first["queue"]),
        (&"WARN".into(), &"vm1".into(), &1.into())
    );
    assert!(first["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')), "{first}");
    assert_eq!(first["target"], module_path!());
    let last = &lines[MOST];
    assert_eq!(last["message"], "1 more lines like this suppressed: ring stopped: index 10 is odd");
    assert_eq!(last["port"], "vm1");
}

/// Writes nothing until it is told to.
struct Stuck(Receiver<()>, Page);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Told, or nobody is there to tell.
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_for_which_there_is_no_room_are_counted() {
    let (go, stuck) = channel();
    let page = Page::default();
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(4).finish(Stuck(stuck, page.clone()));
    let mut left_out =
        LeftOut { limit: Arc::new(Limit::new(limit::MOST_LINES)), lost: writer.error_counter(), said: 0 };
    let subscriber =
        subscriber(EnvFilter::new("debug"), Format::Text, writer, Place::File, left_out.limit.clone());
    tracing::subscriber::with_default(subscriber, || {
        (0..100).for_each(|_| tracing::debug!("one of many"));
        drop(go);
        // There is room once the reader reads again.
        while String::from_utf8_lossy(&page.0.lock().unwrap()).lines().count() < 4 {
            std::thread::sleep(Duration::from_millis(1));
        }
        left_out.say(Instant::now());
    });
    drop(guard);
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    let lost = 100 - text.lines().filter(|line| line.contains("one of many")).count();
    assert!(lost > 0);
    let said = format!("{lost} lines of log were lost: their reader is too slow");
    assert!(text.lines().last().is_some_and(|line| line.contains(&said)), "{said}: {text}");
}

#[test]
fn the_journal_is_told_how_urgent_a_line_is() {
    let say = |_: &mut LeftOut| {
        tracing::error!("lost");
        tracing::warn!(port = "vm1", "late");
        tracing::info!("ready");
        tracing::debug!("asked");
    };
    let module = module_path!();
    let expected = [
        format!("<3>ERROR {module}: lost"),
        format!("<4> WARN {module}: late port=\"vm1\""),
        format!("<6> INFO {module}: ready"),
        format!("<7>DEBUG {module}: asked"),
    ];
    assert_eq!(lines_in(Place::Journal, "debug", Format::Text, say), expected);
    // One that reads objects takes the level from them.
    for line in lines_in(Place::Journal, "debug", Format::Json, say) {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    }
}
