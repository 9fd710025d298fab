// The commands that a device has accepted and not yet ended, in their order: for a reset, which ends once all before it
// have, and for the device's end. Who waits here keeps no later command from beginning: heartbeats must pass while a
// reset waits for a slow command.
#pragma once

#include <boost/intrusive/list.hpp>

#include "core/base/assert.h"
#include "core/runtime/sync.h"
#include "core/runtime/task.h"

namespace cawfs {

class CommandsInFlight {
 public:
  // In the frame of a command, from its beginning to its end.
  class Command : public boost::intrusive::list_base_hook<> {
   public:
    explicit Command(CommandsInFlight& all) : all_(all) { all_.commands_.push_back(*this); }
    ~Command() {
      all_.commands_.erase(all_.commands_.iterator_to(*this));
      all_.ended_.notify_all();
    }
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;

   private:
    CommandsInFlight& all_;
  };

  explicit CommandsInFlight(Executor& executor) : ended_(executor) {}
  ~CommandsInFlight() { CAWFS_ASSERT(commands_.empty()); }

  // Waits until all commands that began before `command`, which is in flight, have ended.
  Task<void> wait_for_older(const Command& command) {
    while (&commands_.front() != &command) co_await ended_.wait();
  }
  Task<void> wait_for_all() {
    while (!commands_.empty()) co_await ended_.wait();
  }

 private:
  boost::intrusive::list<Command> commands_;
  Condition ended_;
};

}  // namespace cawfs
