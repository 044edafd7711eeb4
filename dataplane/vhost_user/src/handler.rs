//! What the `vhost` crate calls for each message: a thin layer that unpacks, logs and shows.

use std::fs::File;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use crate::device::Device;
use crate::features;
use crate::memory::{MAX_REGIONS, RegionId, Table};
use crate::refusal::Refused;
use crate::vring::Areas;

impl Device<'_> {
    /// Carries out `message`, logs a refusal, and shows what changed: before the answer goes out.
    pub(crate) fn carry_out<T>(
        &mut self,
        message: &'static str,
        action: impl FnOnce(&mut Self) -> std::result::Result<T, Refused>,
    ) -> Result<T> {
        self.called = true;
        let result = action(self);
        self.observe();
        result.map_err(|cause| {
            self.note_refusal(message, &cause);
            Error::InvalidOperation(message)
        })
    }
}

fn region_id(region: &VhostUserMemoryRegion) -> RegionId {
    RegionId { guest_addr: region.guest_phys_addr, user_addr: region.user_addr, len: region.memory_size }
}

/// What the session never lets through to the `vhost` crate: messages of features that are not offered.
fn unserved<T>() -> Result<T> {
    Err(Error::InvalidOperation("not served"))
}

impl VhostUserBackendReqHandlerMut for Device<'_> {
    fn set_owner(&mut self) -> Result<()> {
        self.carry_out("SET_OWNER", Device::set_owner)
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.carry_out("RESET_OWNER", Device::reset_owner)
    }

    fn reset_device(&mut self) -> Result<()> {
        self.carry_out("RESET_DEVICE", Device::reset_device)
    }

    fn get_features(&mut self) -> Result<u64> {
        self.carry_out("GET_FEATURES", |device| Ok(device.get_features()))
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.carry_out("SET_FEATURES", |device| device.set_features(features))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.carry_out("SET_MEM_TABLE", |device| {
            let regions = regions.iter().map(|region| (region_id(region), region.mmap_offset));
            let alarm = device.alarm.clone();
            let regions = regions.zip(files).map(|((id, offset), file)| (id, offset, file));
            device.set_table(|| Table::map(regions, &alarm))
        })?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.carry_out("SET_VRING_NUM", |device| device.set_size(index, num))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        _log: u64,
    ) -> Result<()> {
        let logged = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG);
        self.carry_out("SET_VRING_ADDR", |device| {
            device.set_areas(index, Areas { desc, avail, used }, logged)
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.carry_out("SET_VRING_BASE", |device| device.set_base(index, base))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.carry_out("GET_VRING_BASE", |device| device.stop(index))?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.carry_out("SET_VRING_KICK", |device| device.set_kick(index.into(), file))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.carry_out("SET_VRING_CALL", |device| device.set_call(index.into(), file))
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.carry_out("SET_VRING_ERR", |device| device.set_err(index.into(), file))
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        self.called = true;
        Ok(features::PROTOCOL)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.carry_out("SET_PROTOCOL_FEATURES", |device| device.set_protocol_features(features))
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        self.called = true;
        Ok(self.queue_pairs().into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.carry_out("SET_VRING_ENABLE", |device| device.set_enabled(index, enable.into()))
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.carry_out("GET_CONFIG", |device| device.read_config(offset, size))
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.carry_out("SET_CONFIG", |device| device.write_config(offset, bytes))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        self.called = true;
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let (id, offset) = (region_id(region), region.mmap_offset);
        self.carry_out("ADD_MEM_REG", |device| {
            let alarm = device.alarm.clone();
            device.change_table("ADD_MEM_REG", |table| table.with(id, offset, file, &alarm))
        })?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let id = region_id(region);
        self.carry_out("REM_MEM_REG", |device| device.change_table("REM_MEM_REG", |table| table.without(id)))
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> Result<()> {
        unserved()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unserved()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        unserved()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unserved()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        unserved()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unserved()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unserved()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unserved()
    }
}
