// The block device that `iscsi://host[:port]/iqn/lun` names.
#pragma once

#include <memory>
#include <string>

#include "core/base/log.h"
#include "core/device/device.h"
#include "core/device/open_device.h"
#include "core/runtime/reactor.h"

namespace cawfs {

// Where the options name no initiator: the host's name (/etc/iscsi/initiatorname.iscsi, else one made from the host
// name) and ":cawfs-N", with the smallest N that no other process of this host uses. N is held, by a lock under
// /run/cawfs, for the life of the process: a node is one I_T nexus (design §4 rule 10).
Task<Result<std::unique_ptr<BlockDevice>>> open_iscsi_device(Reactor& reactor, Log& log, std::string url,
                                                             OpenOptions options);

}  // namespace cawfs
