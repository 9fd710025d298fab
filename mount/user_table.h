// libmount's table of options that the kernel does not keep (/run/mount/utab). umount(8) asks statfs(2) for the type of
// what it unmounts, which says "fuse" for all of them, unless this table has a line for the mount; only then does it
// look further, and find umount.fuse.cawfs.
#pragma once

#include <string>

namespace cawfs {

// Both ask nothing of the file system. An error only means that umount does not wait: it is ignored. `network`: the
// mount needs the network (_netdev), which mount(8) leaves to us where there is a line already.
void add_to_user_table(const std::string& source, const std::string& directory, bool network);
void remove_from_user_table(const std::string& directory);

}  // namespace cawfs
