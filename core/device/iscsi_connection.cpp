#include "core/device/iscsi_connection.h"

#include <poll.h>

#include <cerrno>

namespace cawfs {

using namespace std::chrono_literals;

IscsiConnection::IscsiConnection(Reactor& reactor, const IscsiTarget& target, const std::string& initiator_name,
                                 std::uint64_t isid)
    : reactor_(reactor), context_(iscsi_create_context(initiator_name.c_str())), portal_(target.portal) {
  CAWFS_ASSERT(context_ != nullptr);
  iscsi_set_targetname(context_, target.name.c_str());
  iscsi_set_session_type(context_, ISCSI_SESSION_NORMAL);
  iscsi_set_header_digest(context_, ISCSI_HEADER_DIGEST_NONE_CRC32C);
  iscsi_set_isid_random(context_, static_cast<std::uint32_t>(isid >> 16 & 0xffffff),
                        static_cast<std::uint32_t>(isid & 0xffff));
  iscsi_set_noautoreconnect(context_, 1);
}

IscsiConnection::~IscsiConnection() {
  iscsi_destroy_context(context_);
}

void IscsiConnection::on_connected(iscsi_context* context, int status, void*, void* self) {
  auto& connection = *static_cast<IscsiConnection*>(self);
  connection.connected_ = true;
  if (status != SCSI_STATUS_GOOD || iscsi_login_async(context, on_ended, self) != 0) {
    connection.fail(iscsi_get_error(context));
  }
}

void IscsiConnection::on_ended(iscsi_context* context, int status, void*, void* self) {
  auto& connection = *static_cast<IscsiConnection*>(self);
  if (status == SCSI_STATUS_GOOD) {
    connection.ended_ = true;
  } else {
    connection.fail(iscsi_get_error(context));
  }
}

Task<bool> IscsiConnection::login(Time deadline) {
  ended_ = false;
  if (iscsi_connect_async(context_, portal_.c_str(), on_connected, this) != 0) fail(iscsi_get_error(context_));
  auto logged_in = co_await finish(deadline);
  co_return logged_in;
}

Task<bool> IscsiConnection::logout(Time deadline) {
  ended_ = false;
  if (iscsi_logout_async(context_, on_ended, this) != 0) fail(iscsi_get_error(context_));
  auto logged_out = co_await finish(deadline);
  co_return logged_out;
}

Task<bool> IscsiConnection::finish(Time deadline) {
  deadline_ = deadline;
  while (!failed_ && !ended_) co_await serve_once();
  deadline_.reset();
  co_return ended_ && !failed_;
}

Task<void> IscsiConnection::serve() {
  while (!failed_) co_await serve_once();
}

Task<void> IscsiConnection::serve_once() {
  const int events = iscsi_which_events(context_);
  if (events == 0) {
    // libiscsi has nothing to wait for yet and asks to be asked again.
    co_await reactor_.executor().sleep(10ms);
    co_return;
  }
  polled_ = static_cast<std::uint32_t>(events);
  const int came = co_await reactor_.poll(iscsi_get_fd(context_), polled_);
  polled_ = 0;
  if (failed_ || came == -ECANCELED) co_return;
  if (came > 0 && (came & POLLIN) != 0) quiet_ticks_ = 0;
  if (came < 0 || iscsi_service(context_, came) != 0) fail(iscsi_get_error(context_));
}

void IscsiConnection::kick() {
  if (failed_) return;
  if (iscsi_service(context_, POLLOUT) != 0) {
    fail(iscsi_get_error(context_));
    return;
  }
  const auto wanted = static_cast<std::uint32_t>(iscsi_which_events(context_));
  if (polled_ != 0 && (wanted & ~polled_) != 0) reactor_.cancel_poll(iscsi_get_fd(context_));
}

void IscsiConnection::tick(Time now, int quiet_ticks) {
  if (deadline_ && now > *deadline_) fail("no answer from the target");
  // The answer to a login may have to wait for what an older session has in flight.
  const bool may_be_quiet = deadline_ && connected_;
  if (failed_ || may_be_quiet) return;
  if (++quiet_ticks_ >= quiet_ticks) {
    fail(connected_ ? "nothing comes from the target" : "no connection to the target");
  } else if (connected_ && quiet_ticks_ == quiet_ticks / 2) {
    if (iscsi_nop_out_async(context_, [](iscsi_context*, int, void*, void*) {}, nullptr, 0, nullptr) != 0)
      fail(iscsi_get_error(context_));
    kick();
  }
}

void IscsiConnection::fail(std::string why) {
  if (failed_) return;
  failed_ = true;
  error_ = std::move(why);
  if (polled_ != 0) reactor_.cancel_poll(iscsi_get_fd(context_));
}

}  // namespace cawfs
