// A real SCSI target (the Linux kernel's LIO inside User-Mode Linux, tests/lab/lio-lun) for the life of an object.
#pragma once

#include <string>
#include <vector>

namespace cawfs::test {

class LioLab {
 public:
  // `options` are those of `lio-lun start`. Aborts with the console's last lines where the target does not come up.
  explicit LioLab(const std::vector<std::string>& options);
  LioLab(const LioLab&) = delete;
  LioLab& operator=(const LioLab&) = delete;
  ~LioLab();

  const std::string& url() const { return url_; }
  const std::string& directory() const { return directory_; }
  // `lio-lun VERB DIR ARGUMENTS`; its standard output. Fails the test where it fails.
  std::string run(const std::string& verb, const std::string& arguments = "");
  // Moves this thread into host `number`'s network namespace (1, 2, ...): sockets made from now on are that host's.
  void enter_host(int number);

 private:
  std::string directory_;
  std::string url_;
};

}  // namespace cawfs::test
