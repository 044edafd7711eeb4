//! The state of one frontend, and what its messages do to it.

mod net;

use std::fs::File;

use rustix::io::{FdFlags, fcntl_setfd};
use tracing::{debug, info};
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use virtqueue::Notifier;

use crate::config_space::ConfigSpace;
use crate::memory::{MapError, Table};
use crate::refusal::{Journal, Refused};
use crate::sigbus::Alarm;
use crate::vring::{Areas, Kick, Vring};
use crate::{DeviceOptions, FrontendState, QueueState, Queues, features};

/// Largest queue size (virtio 1.2, 2.7).
const MAX_SIZE: u16 = 32768;

type Done = Result<(), Refused>;

/// One frontend's device: everything its messages set up.
pub(crate) struct Device<'a> {
    options: &'a DeviceOptions,
    queues: &'a mut dyn Queues,
    journal: Journal,
    /// Whether the `vhost` crate has called the handler for the message at hand.
    pub called: bool,
    owned: bool,
    /// GET_FEATURES has come; the `vhost` crate acks nothing before.
    asked: bool,
    /// SET_PROTOCOL_FEATURES had REPLY_ACK in it last, whether it was refused or not: as the `vhost` crate
    /// sees it, since it answers most messages.
    reply_ack: bool,
    /// `None` until SET_FEATURES.
    features: Option<u64>,
    protocol: Protocol,
    table: Table,
    /// Rings when the frontend takes its memory away under us.
    pub alarm: Alarm,
    vrings: Vec<Vring>,
    config: ConfigSpace,
    /// What NET_SET_MTU has set.
    mtu: Option<u16>,
    /// What SEND_RARP has told.
    mac: Option<[u8; 6]>,
    /// What SET_STATUS has said.
    status: u8,
    connected: bool,
    observed: FrontendState,
}

/// Setting up and closing.
impl<'a> Device<'a> {
    pub fn new(options: &'a DeviceOptions, queues: &'a mut dyn Queues, alarm: Alarm) -> Device<'a> {
        let mut device = Device {
            options,
            queues,
            journal: Journal::new(&options.name),
            called: false,
            owned: false,
            asked: false,
            reply_ack: false,
            features: None,
            protocol: Protocol::empty(),
            table: Table::default(),
            alarm,
            vrings: (0..options.rings()).map(Vring::new).collect(),
            config: ConfigSpace::new(options),
            mtu: None,
            mac: None,
            status: 0,
            connected: true,
            observed: FrontendState::default(),
        };
        device.observe();
        device
    }

    /// Takes every ring back, then unmaps all memory and closes every descriptor.
    pub fn close(&mut self) {
        self.park_all();
        self.vrings = (0..self.options.rings()).map(Vring::new).collect();
        self.table = Table::default();
        self.features = None;
        self.protocol = Protocol::empty();
        (self.mtu, self.mac, self.status) = (None, None, 0);
        self.queues.set_channel(None);
        self.connected = false;
        self.observe();
    }

    /// Shows the state, if it is another than the one shown last.
    pub fn observe(&mut self) {
        let state = self.state();
        if state != self.observed {
            self.queues.observe(&state);
            self.observed = state;
        }
    }

    fn state(&self) -> FrontendState {
        let features = self.features.unwrap_or(0);
        let queue = |vring: &Vring| QueueState {
            enabled: self.features.is_some_and(|features| vring.is_enabled(features)),
            size: vring.size.unwrap_or(0),
            started: vring.running,
            addresses: vring.areas.is_some(),
            kick: !matches!(vring.kick, Kick::Missing),
            call: vring.call.is_some(),
        };
        FrontendState {
            connected: self.connected,
            features,
            protocol_features: self.protocol.bits(),
            memory_regions: self.table.regions(),
            memory_bytes: self.table.bytes(),
            mtu: self.mtu,
            mac: self.mac,
            status: self.status,
            queues: self.vrings.iter().map(queue).collect(),
            refused: self.journal.last().map(str::to_owned),
        }
    }

    /// Whether a message with NEED_REPLY is to be acked.
    pub fn acks(&self) -> bool {
        self.asked && self.reply_ack
    }

    /// Notes that `message` was refused, and shows it.
    pub fn note_refusal(&mut self, message: &'static str, cause: &Refused) {
        self.journal.refused(message, cause);
        self.observe();
    }

    pub fn has_protocol_feature(&self, feature: Protocol) -> bool {
        self.protocol.contains(feature)
    }
}

/// Ownership, features and the config space.
impl Device<'_> {
    /// SET_OWNER. Nothing depends on it: DPDK's virtio-user sends none when it was reconnected to.
    pub fn set_owner(&mut self) -> Done {
        if self.owned {
            return Err(Refused::Owned);
        }
        self.owned = true;
        Ok(())
    }

    /// RESET_OWNER: "It is recommended that back-ends either ignore this message, or use it to disable all
    /// rings." Without VHOST_USER_F_PROTOCOL_FEATURES there is no disabling, so the rings are stopped.
    pub fn reset_owner(&mut self) -> Done {
        self.park_all();
        self.owned = false;
        let can_enable =
            self.features.is_some_and(|features| features::has(features, features::PROTOCOL_FEATURES));
        for vring in &mut self.vrings {
            vring.enabled = false;
            if !can_enable {
                vring.kick = Kick::Missing;
            }
        }
        Ok(())
    }

    /// RESET_DEVICE: "disable all rings and reset all internal device state to the initial state".
    ///
    /// What is the connection's, not the device's, stays: the owner, protocol features, the memory table
    /// (QEMU with CONFIGURE_MEM_SLOTS sends only what changed in it, reset or not), call and error eventfds, the
    /// backend channel, and the guest's address, which it has after a reset as before.
    pub fn reset_device(&mut self) -> Done {
        self.park_all();
        self.features = None;
        (self.mtu, self.status) = (None, 0);
        self.config = ConfigSpace::new(self.options);
        for vring in &mut self.vrings {
            let Vring { index, call, err, .. } = std::mem::replace(vring, Vring::new(vring.index));
            *vring = Vring { call, err, ..Vring::new(index) };
        }
        Ok(())
    }

    pub fn get_features(&mut self) -> u64 {
        self.asked = true;
        features::offered(self.options)
    }

    /// SET_FEATURES. As with rte_vhost, a ring that runs keeps the features it was started with: another set
    /// is refused. (QEMU repeats the same one for each queue pair.)
    pub fn set_features(&mut self, acked: u64) -> Done {
        let unknown = features::never_offered(acked, features::offered(self.options));
        if unknown != 0 {
            return Err(Refused::NeverOffered(features::feature_names(unknown)));
        }
        if self.features == Some(acked) {
            return Ok(());
        }
        if let Some(vring) = self.vrings.iter().find(|vring| vring.running) {
            return Err(Refused::FeaturesRunning { ring: vring.index });
        }
        self.features = Some(acked);
        let names = features::feature_names(acked).join(" ");
        info!(port = self.options.name, "negotiated {names}");
        self.settle_all("SET_FEATURES")
    }

    pub fn set_protocol_features(&mut self, acked: u64) -> Done {
        self.reply_ack = acked & Protocol::REPLY_ACK.bits() != 0;
        let unknown = features::never_offered(acked, features::PROTOCOL.bits());
        if unknown != 0 {
            return Err(Refused::NeverOffered(features::protocol_feature_names(unknown)));
        }
        self.protocol = Protocol::from_bits_truncate(acked);
        let names = features::protocol_feature_names(acked).join(" ");
        debug!(port = self.options.name, "negotiated {names}");
        Ok(())
    }

    pub fn queue_pairs(&self) -> u16 {
        self.options.rings() / 2
    }

    pub fn read_config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, Refused> {
        self.config.read(offset, len, self.queues.link())
    }

    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Done {
        self.config.write(offset, bytes)
    }
}

/// Memory. Rings point into it, so all of them are back before anything is unmapped; then they are started
/// anew where they were.
impl Device<'_> {
    /// SET_MEM_TABLE: the new table, mapped, or why it cannot be. In that case there is no memory at all: the
    /// old table is not what the frontend has any more.
    pub fn set_table(&mut self, map: impl FnOnce() -> Result<Table, MapError>) -> Done {
        self.park_all();
        self.table = Table::default();
        self.table = map()?;
        self.settle_all("SET_MEM_TABLE")
    }

    /// ADD_MEM_REG, REM_MEM_REG: a changed table, or why there is none; then nothing changes.
    pub fn change_table(
        &mut self,
        message: &'static str,
        change: impl FnOnce(&Table) -> Result<Table, MapError>,
    ) -> Done {
        let table = change(&self.table)?;
        self.park_all();
        self.table = table;
        self.settle_all(message)
    }
}

/// Rings.
impl Device<'_> {
    pub fn set_size(&mut self, ring: u32, num: u32) -> Done {
        let packed = self.features.is_some_and(features::is_packed);
        let vring = self.stopped(ring)?;
        let refused = Refused::Size { ring: vring.index, num };
        vring.size = match u16::try_from(num) {
            Ok(size @ 1..=MAX_SIZE) if packed || size.is_power_of_two() => Some(size),
            _ => return Err(refused),
        };
        self.settle(ring)
    }

    pub fn set_base(&mut self, ring: u32, base: u32) -> Done {
        let packed = self.features.is_some_and(features::is_packed);
        let vring = self.stopped(ring)?;
        if !packed && base > u32::from(u16::MAX) {
            return Err(Refused::Base { ring: vring.index, base });
        }
        vring.base = base;
        self.settle(ring)
    }

    pub fn set_areas(&mut self, ring: u32, areas: Areas, logged: bool) -> Done {
        let index = self.vring(ring)?.index;
        if logged {
            return Err(Refused::Log { ring: index });
        }
        self.replace(ring, |vring| vring.areas = Some(areas))
    }

    pub fn set_kick(&mut self, ring: u32, file: Option<File>) -> Done {
        let kick = self.notifier(ring, file)?;
        self.replace(ring, |vring| vring.kick = kick.map_or(Kick::Polled, Kick::By))
    }

    pub fn set_call(&mut self, ring: u32, file: Option<File>) -> Done {
        let call = self.notifier(ring, file)?;
        self.replace(ring, |vring| vring.call = call)
    }

    pub fn set_err(&mut self, ring: u32, file: Option<File>) -> Done {
        let err = self.notifier(ring, file)?;
        self.replace(ring, |vring| vring.err = err)
    }

    /// SET_VRING_ENABLE. Before SET_FEATURES it is remembered: QEMU enables the first pair as soon as it is
    /// connected, long before its guest acknowledges features.
    pub fn set_enabled(&mut self, ring: u32, value: u32) -> Done {
        let index = self.vring(ring)?.index;
        if self.features.is_some_and(|features| !features::has(features, features::PROTOCOL_FEATURES)) {
            return Err(Refused::EnableInactive);
        }
        let enabled = match value {
            0 => false,
            1 => true,
            _ => return Err(Refused::Enable { ring: index, value }),
        };
        if self.vring(ring)?.enabled != enabled {
            self.replace(ring, |vring| vring.enabled = enabled)?;
        }
        Ok(())
    }

    /// GET_VRING_BASE: stops the ring until it gets a new kick, and says where it got to.
    pub fn stop(&mut self, ring: u32) -> Result<u32, Refused> {
        self.vring(ring)?;
        self.park(ring as usize);
        let vring = self.vring(ring)?;
        vring.kick = Kick::Missing;
        Ok(vring.base)
    }

    fn vring(&mut self, ring: u32) -> Result<&mut Vring, Refused> {
        let rings = self.options.rings();
        self.vrings.get_mut(ring as usize).ok_or(Refused::NoSuchRing { ring, rings })
    }

    fn stopped(&mut self, ring: u32) -> Result<&mut Vring, Refused> {
        let vring = self.vring(ring)?;
        if vring.running { Err(Refused::Running { ring: vring.index }) } else { Ok(vring) }
    }

    fn notifier(&mut self, ring: u32, file: Option<File>) -> Result<Option<Notifier>, Refused> {
        let ring = self.vring(ring)?.index;
        let Some(file) = file else { return Ok(None) };
        // The `vhost` crate does not ask for close-on-exec.
        let prepared =
            fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(|errno| std::io::Error::from(errno).into());
        let notifier = prepared.and_then(|()| Notifier::new(file));
        Ok(Some(notifier.map_err(|cause| Refused::Notifier { ring, cause })?))
    }

    /// Changes something of a ring that may be running: takes it back, changes it, gives it out.
    fn replace(&mut self, ring: u32, change: impl FnOnce(&mut Vring)) -> Done {
        self.vring(ring)?;
        self.park(ring as usize);
        change(self.vring(ring)?);
        self.settle(ring)
    }

    /// Takes a ring back, if it is out, and remembers where it got to.
    fn park(&mut self, ring: usize) {
        let Some(vring) = self.vrings.get_mut(ring).filter(|vring| vring.running) else { return };
        vring.running = false;
        // Without an answer the base stays what it was; the engine must not let that happen.
        if let Some(ring) = self.queues.take_back(vring.index) {
            vring.base = ring.base();
        }
        debug!(port = self.options.name, queue = vring.index, base = vring.base, "taken back");
    }

    fn park_all(&mut self) {
        for ring in 0..self.vrings.len() {
            self.park(ring);
        }
    }

    /// Gives a ring out, if it is complete and not out yet.
    fn settle(&mut self, ring: u32) -> Done {
        let (Some(features), Some(memory)) = (self.features, self.table.memory()) else { return Ok(()) };
        let Some(vring) = self.vrings.get_mut(ring as usize) else { return Ok(()) };
        if vring.running {
            return Ok(());
        }
        if let Some(started) = vring.start(features, memory)? {
            debug!(port = self.options.name, queue = vring.index, base = vring.base, "given out");
            vring.running = true;
            self.queues.give_out(started);
        }
        Ok(())
    }

    /// Gives out every ring that can be; the first that cannot, though complete, refuses `message`. The
    /// others run, and a second cause is logged just the same.
    fn settle_all(&mut self, message: &'static str) -> Done {
        let mut done = Ok(());
        for ring in 0..u32::from(self.options.rings()) {
            match (self.settle(ring), &done) {
                (Err(cause), Ok(())) => done = Err(cause),
                (Err(cause), Err(_)) => self.journal.refused(message, &cause),
                (Ok(()), _) => {}
            }
        }
        done
    }
}
