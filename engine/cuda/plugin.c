/* The plug-in's one visible function (engine/device.h). */
#include "engine/cuda/cuda.h"

static const struct qn_device_plugin self = {.abi = QN_DEVICE_ABI, .sizes = QN_DEVICE_SIZES, .probe = qn_cuda_probe, .open = qn_cuda_open};

__attribute__((visibility("default"))) const struct qn_device_plugin *quern_device_plugin(void);
const struct qn_device_plugin *quern_device_plugin(void) { return &self; }
