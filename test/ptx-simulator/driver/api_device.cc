// cuInit, the driver's version, devices.
#include <cstdio>
#include <cstring>

#include "driver/attributes.h"
#include "driver/driver.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

// Different for each device, the same in every run.
CUuuid uuid_of(int ordinal) {
  CUuuid uuid;
  std::memcpy(uuid.bytes, "ptx-simulator\0\0", 16);
  uuid.bytes[15] = static_cast<char>(ordinal);
  return uuid;
}

std::string pci_address(int ordinal) {
  char text[16];
  std::snprintf(text, sizeof text, "0000:%02X:00.0", (ordinal + 1) & 0xff);
  return text;
}

// What fits of a text, as the driver does it: always with an end.
void copy_text(char* to, int bytes, const std::string& text) {
  std::snprintf(to, static_cast<size_t>(bytes), "%s", text.c_str());
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned flags) {
  return api(__func__, kNothing, [&](Call& call) {
    require(flags == 0);
    Driver& state = call.state;
    require(state.settings.devices > 0, CUDA_ERROR_NO_DEVICE, "the simulator is set to no device");
    if (state.initialized) return;
    for (int ordinal = 0; ordinal < state.settings.devices; ++ordinal) {
      Device& device = state.devices.emplace_back();
      device.ordinal = ordinal;
      device.default_pool = std::make_shared<MemoryPool>();
      device.default_pool->device = ordinal;
      state.pools.add(device.default_pool);
      device.pool = device.default_pool;
    }
    state.initialized = true;
  });
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  return api(__func__, kNothing, [&](Call& call) {
    require(version != nullptr);
    *version = call.state.settings.driver_version;
  });
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  return api(__func__, kInit, [&](Call& call) {
    require(count != nullptr);
    *count = static_cast<int>(call.state.devices.size());
  });
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  return api(__func__, kInit, [&](Call& call) {
    require(device != nullptr);
    *device = find_device(call.state, ordinal).ordinal;
  });
}

CUresult CUDAAPI cuDeviceGetName(char* name, int bytes, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(name != nullptr && bytes > 0);
    copy_text(name, bytes, kDeviceName);
  });
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(uuid != nullptr);
    *uuid = uuid_of(device);
  });
}

CUresult CUDAAPI cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(bytes != nullptr);
    *bytes = call.state.settings.memory_bytes;
  });
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    const auto known = device_attribute(attribute, device);
    require(value != nullptr && known.has_value(), "no such attribute");
    *value = *known;
    const int capability = call.state.settings.capability(device);
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = capability / 10;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = capability % 10;
  });
}

CUresult CUDAAPI cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(major != nullptr && minor != nullptr);
    const int capability = call.state.settings.capability(device);
    *major = capability / 10;
    *minor = capability % 10;
  });
}

CUresult CUDAAPI cuDeviceGetProperties(CUdevprop* properties, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(properties != nullptr);
    const auto value = [&](CUdevice_attribute attribute) {
      return *device_attribute(attribute, device);
    };
    *properties = {
        kMaxThreadsPerBlock,
        {kMaxThreadsPerBlock, kMaxThreadsPerBlock, kMaxBlockZ},
        {kMaxGridX, kMaxGridYZ, kMaxGridYZ},
        kSharedPerBlock,
        value(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
        32,
        value(CU_DEVICE_ATTRIBUTE_MAX_PITCH),
        kRegisters,
        value(CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        value(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
    };
  });
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char* text, int bytes, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(text != nullptr && bytes > 0);
    copy_text(text, bytes, pci_address(device));
  });
}

CUresult CUDAAPI cuDeviceGetByPCIBusId(CUdevice* device, const char* text) {
  return api(__func__, kInit, [&](Call& call) {
    require(device != nullptr && text != nullptr);
    for (const Device& candidate : call.state.devices) {
      if (pci_address(candidate.ordinal) != text) continue;
      *device = candidate.ordinal;
      return;
    }
    fail(CUDA_ERROR_INVALID_DEVICE, "no device has this PCI address");
  });
}

CUresult CUDAAPI cuDeviceGetExecAffinitySupport(int* supported, CUexecAffinityType,
                                                CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    require(supported != nullptr);
    *supported = 0;
  });
}

// Devices do not reach each other's memory, as far as the driver says.
CUresult CUDAAPI cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return api(__func__, kInit, [&](Call& call) {
    find_device(call.state, device);
    find_device(call.state, peer);
    require(can != nullptr);
    *can = 0;
  });
}

CUresult CUDAAPI cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags == 0);
    find_context(call.state, peer);
    fail(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "the simulated devices have no peer access");
  });
}

}  // extern "C"
