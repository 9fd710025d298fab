// One libiscsi context: a TCP connection, a session, and the PDUs in flight on it. For iscsi_transport.cpp only.
#pragma once

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/runtime/reactor.h"

namespace cawfs {

struct IscsiTarget {
  std::string portal;  // numeric address and port: looking a name up would block
  std::string name;
  int lun = 0;
};

class IscsiConnection {
 public:
  IscsiConnection(Reactor& reactor, const IscsiTarget& target, const std::string& initiator_name, std::uint64_t isid);
  IscsiConnection(const IscsiConnection&) = delete;
  IscsiConnection& operator=(const IscsiConnection&) = delete;
  // PDUs in flight have their callbacks called with SCSI_STATUS_CANCELLED. No task may be in here any more.
  ~IscsiConnection();

  // Connects and logs in, logs out; false with error() where that fails or is not done by `deadline`.
  Task<bool> login(Time deadline);
  Task<bool> logout(Time deadline);
  // Serves the socket until the connection fails.
  Task<void> serve();

  // After PDUs have been queued: sends what the socket takes now; the rest goes when it takes more.
  void kick();
  // To be called regularly. A login or logout whose time is over fails. So does a connection that is not made, or on
  // which, once logged in, nothing comes for `quiet_ticks` calls in a row; after half of them it asks the target by
  // NOP-Out (RFC 7143 11.18). Calls are counted, not time: after a pause of the process an answer may wait to be read.
  void tick(Time now, int quiet_ticks);
  void fail(std::string why);

  bool failed() const { return failed_; }
  const std::string& error() const { return error_; }
  iscsi_context* context() const { return context_; }

 private:
  // Serves the socket until a login or logout has ended.
  Task<bool> finish(Time deadline);
  Task<void> serve_once();

  static void on_connected(iscsi_context* context, int status, void* data, void* self);
  static void on_ended(iscsi_context* context, int status, void* data, void* self);

  Reactor& reactor_;
  iscsi_context* context_;
  std::string portal_;
  std::string error_;
  std::optional<Time> deadline_;
  std::uint32_t polled_ = 0;  // events that serve_once() waits for
  int quiet_ticks_ = 0;       // since something came
  bool connected_ = false;
  bool ended_ = false;  // the login or logout under way
  bool failed_ = false;
};

}  // namespace cawfs
