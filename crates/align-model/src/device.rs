//! Names of devices: `flex`, `vulkan:0`, `metal`, `wgpu`, `cuda:1`, `rocm`.

use std::str::FromStr;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// A device as a user names it, before anything is started on it.
///
/// Parsing checks the spelling alone; [`DeviceName::open`] checks that the backend was compiled in and, on the graphics
/// APIs, that the adapter is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName {
    backend: Backend,
    index: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Backend {
    Flex,
    Vulkan,
    Metal,
    Wgpu,
    Cuda,
    Rocm,
}

/// A device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No backend has this name.
    #[error(
        "unknown device `{name}`: expected flex, vulkan, metal, wgpu, cuda or rocm, with an optional index such as cuda:1"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The index behind the colon is not a number, or the backend has one device only.
    #[error("device `{name}`: `{index}` is not a device index")]
    BadIndex {
        /// What was asked for.
        name: String,
        /// The part behind the colon.
        index: String,
    },
    /// The backend exists but was not compiled in.
    #[error("device `{name}` is not compiled in: build with `--features {feature}`")]
    NotCompiled {
        /// What was asked for.
        name: String,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// The backend is compiled in but this machine has no such device.
    #[error("device `{name}` is not there: {reason}")]
    Absent {
        /// What was asked for.
        name: String,
        /// What the driver said.
        reason: String,
    },
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let (backend, index) = match name.split_once(':') {
            Some((backend, index)) => {
                let number: usize = index.parse().map_err(|_| bad_index(name, index))?;
                (backend, Some(number))
            }
            None => (name, None),
        };
        let backend = match backend {
            "flex" | "cpu" => Backend::Flex,
            "vulkan" => Backend::Vulkan,
            "metal" => Backend::Metal,
            "wgpu" => Backend::Wgpu,
            "cuda" => Backend::Cuda,
            "rocm" => Backend::Rocm,
            _ => return Err(DeviceError::Unknown { name: name.into() }),
        };
        match (backend, index) {
            (Backend::Flex, Some(index)) if index > 0 => Err(bad_index(name, &index.to_string())),
            _ => Ok(Self { backend, index }),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(name: String) -> Result<Self, DeviceError> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

fn bad_index(name: &str, index: &str) -> DeviceError {
    DeviceError::BadIndex { name: name.into(), index: index.into() }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.backend.feature())?;
        self.index.map_or(Ok(()), |index| write!(f, ":{index}"))
    }
}

impl Backend {
    fn feature(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }
}

impl DeviceName {
    /// The CPU.
    pub const FLEX: Self = Self { backend: Backend::Flex, index: None };

    /// Starts the device.
    ///
    /// # Errors
    /// If its backend is not compiled in (the message names the cargo feature), or the machine has no such device.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self.backend {
            #[cfg(feature = "flex")]
            Backend::Flex => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => self.open_graphics(burn::tensor::wgpu::WgpuBackend::Vulkan),
            #[cfg(feature = "metal")]
            Backend::Metal => self.open_graphics(burn::tensor::wgpu::WgpuBackend::Metal),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => self.open_graphics(burn::tensor::wgpu::WgpuBackend::Auto),
            #[cfg(feature = "cuda")]
            Backend::Cuda => self.open_numbered(burn::tensor::DeviceType::Cuda, Device::cuda),
            #[cfg(feature = "rocm")]
            Backend::Rocm => self.open_numbered(burn::tensor::DeviceType::Rocm, Device::rocm),
            #[allow(unreachable_patterns)] // with every backend compiled in, nothing is left for this arm
            other => Err(DeviceError::NotCompiled { name: self.to_string(), feature: other.feature() }),
        }
    }

    /// Opens the device, or hands out the one that this process has opened before: burn starts each only once.
    #[cfg(any(feature = "vulkan", feature = "metal", feature = "wgpu"))]
    fn open_graphics(self, api: burn::tensor::wgpu::WgpuBackend) -> Result<Device, DeviceError> {
        use burn::tensor::DeviceKind;
        static OPENED: std::sync::Mutex<Vec<(DeviceName, Device)>> = std::sync::Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, device)) = opened.iter().find(|(name, _)| *name == self) {
            return Ok(device.clone());
        }
        let kind = self.index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
        let options = Device::wgpu_options().device_kind(kind).graphics_api(api);
        let absent = |e| DeviceError::Absent { name: self.to_string(), reason: format!("{e}") };
        let device = options.init().map_err(absent)?;
        opened.push((self, device.clone()));
        Ok(device)
    }

    #[cfg(any(feature = "cuda", feature = "rocm"))]
    fn open_numbered(
        self,
        kind: burn::tensor::DeviceType,
        open: impl Fn(usize) -> Device,
    ) -> Result<Device, DeviceError> {
        let (found, index) = (Device::enumerate(kind).into_vec().len(), self.index.unwrap_or(0));
        if index < found {
            Ok(open(index))
        } else {
            Err(DeviceError::Absent {
                name: self.to_string(),
                reason: format!("the driver lists {found} devices"),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<DeviceName, DeviceError> {
        name.parse()
    }

    #[test]
    fn names_round_trip() {
        for name in ["flex", "flex:0", "vulkan:0", "metal", "wgpu", "cuda:1", "rocm"] {
            assert_eq!(parse(name).unwrap().to_string(), name);
        }
        assert_eq!(parse("cpu"), parse("flex"));
    }

    #[test]
    fn unknown_names_say_what_is_expected() {
        for name in ["tpu", "", " flex", "CUDA", ":0", "gpu:1"] {
            let error = parse(name).unwrap_err();
            assert_eq!(error, DeviceError::Unknown { name: name.into() });
            assert!(
                error.to_string().contains("expected flex, vulkan, metal, wgpu, cuda or rocm"),
                "{error}"
            );
        }
    }

    #[test]
    fn configurations_hold_names() {
        let name: DeviceName = serde_json::from_str("\"cuda:1\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"cuda:1\"");
        let error = serde_json::from_str::<DeviceName>("\"tpu\"").unwrap_err();
        assert!(error.to_string().contains("unknown device `tpu`"), "{error}");
    }

    #[test]
    fn bad_indices_are_named() {
        for (name, index) in
            [("cuda:one", "one"), ("cuda:", ""), ("cuda:-1", "-1"), ("cuda:1:2", "1:2"), ("flex:3", "3")]
        {
            let error = parse(name).unwrap_err();
            assert_eq!(error, DeviceError::BadIndex { name: name.into(), index: index.into() });
            assert_eq!(error.to_string(), format!("device `{name}`: `{index}` is not a device index"));
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_opens() {
        assert_eq!(parse("flex").unwrap().open().unwrap(), Device::flex());
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn a_graphics_device_opens_more_than_once() {
        let open = || parse("wgpu").unwrap().open();
        match (open(), open()) {
            (Ok(first), Ok(second)) => assert_eq!(first, second),
            (Err(first), Err(second)) => assert_eq!(first, second),
            (first, second) => panic!("{first:?}, then {second:?}"),
        }
    }

    #[test]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let compiled = [
            ("vulkan", cfg!(feature = "vulkan")),
            ("metal", cfg!(feature = "metal")),
            ("wgpu", cfg!(feature = "wgpu")),
            ("cuda", cfg!(feature = "cuda")),
            ("rocm", cfg!(feature = "rocm")),
        ];
        for (name, _) in compiled.into_iter().filter(|(_, compiled)| !compiled) {
            let error = parse(&format!("{name}:1")).unwrap().open().unwrap_err();
            let expected = format!("device `{name}:1` is not compiled in: build with `--features {name}`");
            assert_eq!(error.to_string(), expected);
        }
    }
}
