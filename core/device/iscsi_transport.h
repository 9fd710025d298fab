// SCSI commands over iSCSI (RFC 7143) with libiscsi, which is used asynchronously from the reactor.
//
// libiscsi's own reconnect is off: it would send commands in flight again (design §4 rule 4). When a connection fails,
// or a command is not answered within its time, the connection is dropped, commands in flight end with kTransport, and
// the transport logs in again with the same initiator name and ISID: session reinstatement, by which the target ends
// the old session's tasks and keeps the registration. Commands that come meanwhile wait for the new session, no longer
// than a command may take; those bound to the old one fail unsent. What a session has queued dies with it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/log.h"
#include "core/device/scsi_transport.h"
#include "core/runtime/reactor.h"

namespace cawfs {

struct IscsiOptions {
  std::string url;                              // iscsi://host[:port]/iqn/lun
  std::string initiator_name;                   // unique in the cluster: one name is one I_T nexus
  Duration timeout = std::chrono::seconds(10);  // of a command, and of a login
  // A LUN reset is answered when older commands have ended; LIO took 42 s with a victim's connection half-open.
  Duration reset_timeout = std::chrono::seconds(90);
};

// The ISID of a node, of the random format (RFC 7143 11.12.5): fixed by the initiator name, so that a daemon started
// anew takes its predecessor's session over.
std::uint64_t isid_of(std::string_view initiator_name);

// Logs in; where the first login fails, says why in the log. Ignores SIGPIPE for the whole process, as libiscsi writes
// to sockets.
Task<Result<std::unique_ptr<ScsiTransport>>> open_iscsi_transport(Reactor& reactor, Log& log, IscsiOptions options);

}  // namespace cawfs
