#include "mount/user_table.h"

#include <libmount.h>

#include <memory>

namespace cawfs {

namespace {

using Update = std::unique_ptr<libmnt_update, decltype(&mnt_free_update)>;
using Line = std::unique_ptr<libmnt_fs, decltype(&mnt_unref_fs)>;

Update new_update() {
  return {mnt_new_update(), &mnt_free_update};
}

}  // namespace

void add_to_user_table(const std::string& source, const std::string& directory, bool network) {
  const Line line(mnt_new_fs(), &mnt_unref_fs);
  const Update update = new_update();
  if (!line || !update) return;
  const char* options = network ? "uhelper=fuse.cawfs,_netdev" : "uhelper=fuse.cawfs";
  const bool filled = mnt_fs_set_source(line.get(), source.c_str()) == 0 &&
                      mnt_fs_set_target(line.get(), directory.c_str()) == 0 &&
                      mnt_fs_set_options(line.get(), options) == 0;
  if (filled && mnt_update_set_fs(update.get(), 0, nullptr, line.get()) == 0) mnt_update_table(update.get(), nullptr);
}

void remove_from_user_table(const std::string& directory) {
  const Update update = new_update();
  if (update && mnt_update_set_fs(update.get(), 0, directory.c_str(), nullptr) == 0) {
    mnt_update_table(update.get(), nullptr);
  }
}

}  // namespace cawfs
