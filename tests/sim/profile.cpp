#include "tests/sim/profile.h"

#include <algorithm>
#include <array>

namespace cawfs::sim {

namespace {

using namespace std::chrono_literals;

constexpr std::array kProfiles{
    Profile{.name = "calm", .what = "no faults", .rates = {}},
    Profile{.name = "crashes",
            .what = "nodes crash and come back",
            .rates = {.crashes = true, .longest_quiet = 1s, .longest_absence = 3s}},
    Profile{.name = "power",
            .what = "nodes crash, target or everything loses power",
            .rates = {.crashes = true, .power_cuts = true, .longest_quiet = 200ms, .longest_absence = 2s}},
    Profile{.name = "cuts",
            .what = "nodes stand still, paths are cut",
            .rates = {.pauses = true, .cut_paths = true, .longest_quiet = 1s}},
    Profile{
        .name = "mounts", .what = "nodes unmount and mount again", .rates = {.unmounts = true, .longest_quiet = 300ms}},
    Profile{.name = "caws", .what = "COMPARE AND WRITEs and their replies are lost", .rates = {.lost_caws = 20}},
    Profile{.name = "backend",
            .what = "commands stay long in the backend of a target without sessions, nodes stand still",
            .rates = {.pauses = true,
                      .stalls = 10,
                      .only_writes_stall = true,
                      .longest_stall = 8s,
                      .one_at_a_time = true,
                      .longest_quiet = 2s},
            .mix = Mix::kSyncs,
            .sessions = false},
    Profile{.name = "held",
            .what = "what a node sends stays on its way for longer than the dead-time",
            .rates = {.holds = true, .longest_quiet = 2s}},
    Profile{.name = "silences",
            .what = "the device answers nobody, for longer than the dead-time, too",
            .rates = {.silences = true, .longest_quiet = 2s}},
    Profile{.name = "outages",
            .what = "everything loses power while small writes are synced",
            .rates = {.outages = true, .longest_quiet = 2s, .longest_absence = 500ms},
            .mix = Mix::kSyncs},
    Profile{.name = "names", .what = "no faults, operations on names only", .rates = {}, .mix = Mix::kNames},
    Profile{.name = "cut-readers",
            .what = "paths of nodes that read one file all the time are cut",
            .rates = {.cut_paths = true, .one_at_a_time = true, .only_first = true, .longest_quiet = 3s},
            .mix = Mix::kHot},
    Profile{.name = "late-readers",
            .what = "of nodes that read one file all the time heartbeats are answered late, then the path is cut",
            .rates = {.late_heartbeats = true, .one_at_a_time = true, .only_first = true, .longest_quiet = 2s},
            .mix = Mix::kHot},
    Profile{.name = "trees",
            .what = "nodes crash that make and lose trees of extents, on a small LUN",
            .rates = {.crashes = true, .longest_quiet = 1s, .longest_absence = 1s},
            .mix = Mix::kTrees,
            .logical_block = 512,
            .lun_bytes = 12 << 20},
    Profile{.name = "forgets",
            .what = "the target forgets registrations when it loses its power; nodes stand still",
            .rates = {.pauses = true, .restarts = true, .near_dead_time = true, .longest_quiet = 2s},
            .forgets_power = true},
};

}  // namespace

std::span<const Profile> profiles() {
  return kProfiles;
}

const Profile* find_profile(std::string_view name) {
  const auto found = std::ranges::find(kProfiles, name, &Profile::name);
  return found == kProfiles.end() ? nullptr : &*found;
}

}  // namespace cawfs::sim
