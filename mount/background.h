// Goes into the background the way mount(8) needs it: the process that was started waits until its child has mounted,
// and ends with the child's exit code if it could not. The child is the daemon, with the command line unchanged.
// Nothing of threads or rings may exist before.
#pragma once

namespace cawfs {

class Background {
 public:
  // Returns in the child only; in the foreground at once. The parent's process ends inside.
  explicit Background(bool foreground);
  Background(const Background&) = delete;
  ~Background();

  // The file system is mounted: the parent exits 0, this process lets go of the terminal.
  void mounted();

 private:
  int parent_ = -1;  // a pipe's end
};

}  // namespace cawfs
