//! What is done about a row of rings: run in either format, by `split` and `packed`.

use std::time::Duration;

use tests::hostile::guest::{Hostile, feature};
use tests::hostile::ring::Buf;
use tests::hostile::stage::{Log, Stage, meanwhile, repeat};
use tests::wait;

/// The ring the guest receives on, and the ring it sends on.
pub const TO: usize = 0;
/// Likewise.
pub const FROM: usize = 1;

/// A ring format, and cases for it.
pub struct Rows<'a> {
    /// Where the cases run.
    pub stage: &'a mut Stage,
    /// Feature bits that choose the format.
    pub features: u64,
}

impl Rows<'_> {
    /// A misdeed on a ring stops that ring: it is counted, logged and shown as `violation`, err is signalled,
    /// the pair's other ring goes on, and a restart brings the ring back.
    pub fn stops(
        &mut self,
        row: &str,
        sent: &str,
        ring: usize,
        violation: &str,
        misdeed: impl Fn(&mut Hostile) + Sync,
    ) {
        self.stops_with(0, row, sent, ring, violation, misdeed);
    }

    /// The same with more feature bits.
    pub fn stops_with(
        &mut self,
        features: u64,
        row: &str,
        sent: &str,
        ring: usize,
        violation: &str,
        misdeed: impl Fn(&mut Hostile) + Sync,
    ) {
        let features = self.features | features;
        self.stage.case(row, sent, Log::Says(&["ring stopped: ", violation]), |bench| {
            let mut hostile = Hostile::running(&bench.socket(), features);
            hostile.assert_serves();
            let before = bench.violations(ring);
            misdeed(&mut hostile);
            wait::until("the violation is shown", 5, || match bench.violation(ring) {
                Some(text) if text.contains(violation) => Ok(()),
                other => Err(format!("{other:?}")),
            });
            assert_eq!((bench.port().state.as_str(), bench.violations(ring)), ("broken", before + 1));
            assert_eq!(hostile.wires[ring].err.read(), Ok(1), "the error eventfd");
            hostile.assert_moves(ring ^ 1);
            hostile.restart(ring as u32);
            hostile.assert_moves(ring);
            assert_eq!(bench.violation(ring), None);
            "stopped, counted, err signalled, other ring goes on, a restart helps".to_owned()
        });
    }

    /// What looks like a misdeed and is none, or is dropped and counted as `drop`: chains are used, and the ring
    /// goes on.
    pub fn serves(
        &mut self,
        row: &str,
        sent: &str,
        ring: usize,
        features: u64,
        drop: Option<&str>,
        deed: impl Fn(&mut Hostile) + Sync,
    ) {
        let features = self.features | features;
        self.stage.case(row, sent, Log::Silent, |bench| {
            // Frames that the guest cannot take were the nic's.
            let port = || if ring == TO { bench.daemon.port("wire2") } else { bench.port() };
            let drops = || drop.map_or(0, |reason| port().drops[reason]);
            let mut hostile = Hostile::running(&bench.socket(), features);
            hostile.assert_moves(FROM);
            let before = drops();
            deed(&mut hostile);
            // Where nothing the guest has posted will do, packets are dropped and nothing is used.
            if drop.is_none() || ring == FROM {
                hostile.wait_used(ring);
            }
            hostile.assert_moves(ring ^ 1);
            assert_eq!(bench.violation(ring), None);
            match drop {
                None => "served".to_owned(),
                Some(reason) => {
                    wait::until(reason, 5, || if drops() > before { Ok(()) } else { Err("not counted") });
                    format!("dropped, counted as {reason}")
                }
            }
        });
    }

    /// While `flip` changes something over and over, the ring is kept full of `chain`; whatever the backend makes
    /// of it, at most that ring is stopped, and a restart helps.
    pub fn survives(
        &mut self,
        row: &str,
        sent: &str,
        ring: usize,
        chain: &(dyn Fn(&Hostile) -> Vec<Buf> + Sync),
        flip: impl Fn(&Hostile, u64) + Sync,
    ) {
        let features = self.features | feature::INDIRECT;
        self.stage.case(row, sent, Log::Any, |bench| {
            let mut hostile = Hostile::running(&bench.socket(), features);
            let (chain, mut stopped, mut moved) = (chain(&hostile), 0, 0);
            let mut posting = std::mem::take(&mut hostile.rings);
            repeat(Duration::from_millis(250), |_| {
                meanwhile(
                    |round| flip(&hostile, round),
                    || {
                        let before = posting[ring].collect();
                        repeat(Duration::from_millis(10), |_| posting[ring].fill(&chain));
                        moved += posting[ring].collect().wrapping_sub(before) & 0xffff_ffff;
                    },
                );
                if bench.violation(ring).is_some() {
                    std::mem::swap(&mut hostile.rings, &mut posting);
                    hostile.restart(ring as u32);
                    std::mem::swap(&mut hostile.rings, &mut posting);
                    stopped += 1;
                }
            });
            hostile.rings = posting;
            hostile.restart(ring as u32);
            (0..2).for_each(|ring| hostile.assert_moves(ring));
            format!("{moved} chains used, stopped and restarted {stopped} times")
        });
    }
}
