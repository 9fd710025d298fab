#include "mount/mount_options.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <random>

namespace cawfs {
namespace {

using namespace std::chrono_literals;

MountOptions parse(std::string_view text) {
  MountOptions options;
  auto parsed = parse_option_words(text, false, options);
  EXPECT_TRUE(parsed) << text << ": " << (parsed ? "" : parsed.error().message);
  return options;
}

Failure refusal(std::string_view text) {
  MountOptions options;
  auto parsed = parse_option_words(text, false, options);
  EXPECT_FALSE(parsed) << text;
  return parsed ? Failure{} : parsed.error();
}

TEST(MountOptionsTest, GenericWordsBecomeFlags) {
  EXPECT_EQ(parse("").mount_flags, 0u);
  EXPECT_EQ(parse("rw,defaults").mount_flags, 0u);
  EXPECT_EQ(parse("nosuid,nodev,noexec,noatime").mount_flags,
            static_cast<unsigned long>(MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME));
  EXPECT_EQ(parse("nosuid,suid").mount_flags, 0u) << "the later word wins";
  EXPECT_TRUE(parse("ro").read_only);
  EXPECT_FALSE(parse("ro,rw").read_only);
  EXPECT_TRUE(parse("sync").synchronous);
}

TEST(MountOptionsTest, WordsOfOthersAreLetPass) {
  EXPECT_EQ(parse("_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-name=a b,comment=x,,").mount_flags, 0u);
}

TEST(MountOptionsTest, OwnWords) {
  const MountOptions options = parse("local,noaptpl,initiator=iqn.2026-11.org.example:a,poll=5");
  EXPECT_TRUE(options.local);
  EXPECT_TRUE(options.no_aptpl);
  EXPECT_EQ(options.initiator, "iqn.2026-11.org.example:a");
  EXPECT_EQ(options.poll_slowest, 5ms);
  EXPECT_TRUE(parse("ro,norecovery").no_recovery);
  EXPECT_FALSE(parse("").discard);
  EXPECT_TRUE(parse("discard").discard);
  EXPECT_FALSE(parse("discard,nodiscard").discard);
}

TEST(MountOptionsTest, UnknownWordsAreRefusedByName) {
  const Failure failure = refusal("ro,bananas,nosuid");
  EXPECT_EQ(failure.exit_code, kExitUsage);
  EXPECT_NE(failure.message.find("bananas"), std::string::npos);
  MountOptions options;
  EXPECT_TRUE(parse_option_words("bananas,ro", true, options));
  EXPECT_TRUE(options.read_only);
}

TEST(MountOptionsTest, ValuesAreChecked) {
  for (const char* text : {"poll=0", "poll=1001", "poll=x", "poll=5x", "poll=", "poll", "poll=-1", "initiator",
                           "initiator=", "local=1", "ro=yes", "poll=99999999999999999999"}) {
    EXPECT_EQ(refusal(text).exit_code, kExitUsage) << text;
  }
}

TEST(MountOptionsTest, NoRecoveryIsForReadingOnly) {
  EXPECT_FALSE(check_options(parse("norecovery")));
  EXPECT_TRUE(check_options(parse("ro,norecovery")));
}

TEST(MountOptionsTest, RandomWordsAreAcceptedOrRefused) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  constexpr std::string_view kLetters = "rolcapi=,0x-_";
  for (int i = 0; i < 20'000; ++i) {
    std::string text(random() % 24, ' ');
    for (char& c : text) c = kLetters[random() % kLetters.size()];
    MountOptions options;
    auto parsed = parse_option_words(text, false, options);
    if (!parsed) EXPECT_FALSE(parsed.error().message.empty());
  }
}

}  // namespace
}  // namespace cawfs
