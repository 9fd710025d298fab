#include "core/device/reservation_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/random.h"

namespace cawfs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using enum ReservationAttention;

constexpr auto kType5 = ReservationType::kWriteExclusiveRegistrants;
constexpr auto kType7 = ReservationType::kWriteExclusiveAllRegistrants;
constexpr PrKey kNoKey{};
constexpr PrKey kA{0xa};
constexpr PrKey kB{0xb};
constexpr PrKey kC{0xc};

using Queued = ReservationTable::Queued;

struct ReservationTableTest : ::testing::Test {
  ReservationTable table;

  void register_all(Aptpl aptpl = Aptpl::kYes) {
    ASSERT_TRUE(table.register_key("a", kNoKey, kA, aptpl));
    ASSERT_TRUE(table.register_key("b", kNoKey, kB, aptpl));
    ASSERT_TRUE(table.register_key("c", kNoKey, kC, aptpl));
  }
  // An action that is refused changes nothing.
  template <class Action>
  void expect_refused(Errc code, Action action) {
    const ReservationTable before = table;
    auto done = action();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error(), code);
    EXPECT_EQ(table, before);
  }
};

TEST_F(ReservationTableTest, RegisterNeedsTheCurrentKey) {
  expect_refused(Errc::kReservationConflict, [&] { return table.register_key("a", kB, kA, Aptpl::kNo); });
  ASSERT_TRUE(table.register_key("a", kNoKey, kA, Aptpl::kNo));
  EXPECT_EQ(table.key_of("a"), kA);
  expect_refused(Errc::kReservationConflict, [&] { return table.register_key("a", kNoKey, kB, Aptpl::kNo); });
  expect_refused(Errc::kReservationConflict, [&] { return table.register_key("a", kB, kNoKey, Aptpl::kNo); });
  ASSERT_TRUE(table.register_key("a", kA, kB, Aptpl::kNo));
  EXPECT_EQ(table.key_of("a"), kB);
  ASSERT_TRUE(table.register_key("a", kB, kNoKey, Aptpl::kNo));
  EXPECT_EQ(table.key_of("a"), kNoKey);
  EXPECT_EQ(table.read_keys().generation, 3u);
}

TEST_F(ReservationTableTest, RegisterAndIgnoreReplacesAnyKey) {
  ASSERT_TRUE(table.register_ignore("a", kA, Aptpl::kNo));
  ASSERT_TRUE(table.register_ignore("a", kB, Aptpl::kNo));
  EXPECT_THAT(table.read_keys().keys, ElementsAre(kB));
  ASSERT_TRUE(table.register_ignore("a", kNoKey, Aptpl::kNo));
  EXPECT_THAT(table.read_keys().keys, IsEmpty());
  ASSERT_TRUE(table.register_ignore("a", kNoKey, Aptpl::kNo));
  EXPECT_EQ(table.read_keys().generation, 3u);
}

TEST_F(ReservationTableTest, OneKeyMayStandForSeveralNexuses) {
  ASSERT_TRUE(table.register_key("a1", kNoKey, kA, Aptpl::kYes));
  ASSERT_TRUE(table.register_key("a2", kNoKey, kA, Aptpl::kYes));
  ASSERT_TRUE(table.register_key("b", kNoKey, kB, Aptpl::kYes));
  EXPECT_THAT(table.read_keys().keys, ElementsAre(kA, kA, kB));
  ASSERT_TRUE(table.reserve("b", kB, kType7));
  auto queued = table.preempt("b", kB, kA, kType7);
  ASSERT_TRUE(queued);
  EXPECT_THAT(*queued,
              UnorderedElementsAre(Queued{"a1", kRegistrationsPreempted}, Queued{"a2", kRegistrationsPreempted}));
  EXPECT_FALSE(table.may_write("a1"));
  EXPECT_FALSE(table.may_write("a2"));
}

TEST_F(ReservationTableTest, OnlyRegistrantsWriteUnderAReservation) {
  EXPECT_TRUE(table.may_write("stranger"));
  register_all();
  EXPECT_TRUE(table.may_write("stranger"));
  for (auto type : {kType5, kType7}) {
    ASSERT_TRUE(table.reserve("a", kA, type));
    EXPECT_TRUE(table.may_write("a"));
    EXPECT_TRUE(table.may_write("b"));
    EXPECT_FALSE(table.may_write("stranger"));
    ASSERT_TRUE(table.release("a", kA, type));
  }
}

TEST_F(ReservationTableTest, ReserveRules) {
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("a", kA, kType7); });
  register_all();
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("a", kB, kType7); });
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("a", kNoKey, kType7); });
  expect_refused(Errc::kUnsupported, [&] { return table.reserve("a", kA, ReservationType::kNone); });
  expect_refused(Errc::kUnsupported, [&] { return table.reserve("a", kA, static_cast<ReservationType>(1)); });
  expect_refused(Errc::kUnsupported, [&] { return table.reserve("a", kA, ReservationType::kOther); });

  const auto generation = table.read_keys().generation;
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  EXPECT_EQ(table.read_keys().generation, generation);
  EXPECT_EQ(table.read_reservation().type, kType5);
  EXPECT_EQ(table.read_reservation().raw_type, 5);
  EXPECT_EQ(table.read_reservation().holder, kA);
  EXPECT_TRUE(table.reserve("a", kA, kType5));  // again, by its holder
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("a", kA, kType7); });
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("b", kB, kType5); });

  ASSERT_TRUE(table.release("a", kA, kType5));
  ASSERT_TRUE(table.reserve("a", kA, kType7));
  EXPECT_EQ(table.read_reservation().holder, kNoKey);
  EXPECT_TRUE(table.reserve("b", kB, kType7));  // every registrant holds it
  expect_refused(Errc::kReservationConflict, [&] { return table.reserve("b", kB, kType5); });
}

TEST_F(ReservationTableTest, ReleaseTellsTheOtherRegistrants) {
  register_all();
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  expect_refused(Errc::kReservationConflict, [&] { return table.release("x", kA, kType5); });
  expect_refused(Errc::kReservationConflict, [&] { return table.release("a", kB, kType5); });
  expect_refused(Errc::kUnsupported, [&] { return table.release("a", kA, kType7); });
  auto by_other = table.release("b", kB, kType5);  // good, without effect
  ASSERT_TRUE(by_other);
  EXPECT_THAT(*by_other, IsEmpty());
  EXPECT_EQ(table.read_reservation().type, kType5);
  auto queued = table.release("a", kA, kType5);
  ASSERT_TRUE(queued);
  EXPECT_THAT(*queued, UnorderedElementsAre(Queued{"b", kReservationsReleased}, Queued{"c", kReservationsReleased}));
  EXPECT_EQ(table.read_reservation().type, ReservationType::kNone);
  EXPECT_TRUE(table.release("a", kA, kType5));
}

TEST_F(ReservationTableTest, Type5GoesWithItsHolder) {
  register_all();
  ASSERT_TRUE(table.reserve("b", kB, kType5));
  auto other_left = table.register_key("c", kC, kNoKey, Aptpl::kYes);
  ASSERT_TRUE(other_left);
  EXPECT_THAT(*other_left, IsEmpty());
  EXPECT_EQ(table.read_reservation().type, kType5);
  auto queued = table.register_key("b", kB, kNoKey, Aptpl::kYes);
  ASSERT_TRUE(queued);
  EXPECT_THAT(*queued, ElementsAre(Queued{"a", kReservationsReleased}));
  EXPECT_EQ(table.read_reservation().type, ReservationType::kNone);
  EXPECT_TRUE(table.may_write("b"));
}

TEST_F(ReservationTableTest, Type7GoesWithTheLastRegistration) {
  register_all();
  ASSERT_TRUE(table.reserve("a", kA, kType7));
  ASSERT_TRUE(table.register_key("a", kA, kNoKey, Aptpl::kYes));
  ASSERT_TRUE(table.register_key("b", kB, kNoKey, Aptpl::kYes));
  EXPECT_EQ(table.read_reservation().type, kType7);
  EXPECT_FALSE(table.may_write("a"));
  ASSERT_TRUE(table.register_key("c", kC, kNoKey, Aptpl::kYes));
  EXPECT_EQ(table.read_reservation().type, ReservationType::kNone);
}

TEST_F(ReservationTableTest, ClearRemovesEverything) {
  register_all();
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  expect_refused(Errc::kReservationConflict, [&] { return table.clear("x", kA); });
  auto queued = table.clear("c", kC);
  ASSERT_TRUE(queued);
  EXPECT_THAT(*queued, UnorderedElementsAre(Queued{"a", kReservationsPreempted}, Queued{"b", kReservationsPreempted}));
  EXPECT_THAT(table.read_keys().keys, IsEmpty());
  EXPECT_EQ(table.read_keys().generation, 4u);
  EXPECT_EQ(table.read_reservation().type, ReservationType::kNone);
}

TEST_F(ReservationTableTest, PreemptUnderType7) {
  register_all();
  ASSERT_TRUE(table.reserve("a", kA, kType7));
  expect_refused(Errc::kReservationConflict, [&] { return table.preempt("x", kA, kB, kType7); });
  expect_refused(Errc::kReservationConflict, [&] { return table.preempt("a", kB, kC, kType7); });
  expect_refused(Errc::kReservationConflict, [&] { return table.preempt("a", kA, PrKey{99}, kType7); });

  auto queued = table.preempt("a", kA, kB, kType7);
  ASSERT_TRUE(queued);
  EXPECT_THAT(*queued, ElementsAre(Queued{"b", kRegistrationsPreempted}));
  EXPECT_EQ(table.read_reservation().type, kType7);
  EXPECT_EQ(table.read_keys().generation, 4u);
  // The victim cannot fence back, nor is there anybody left to fence.
  expect_refused(Errc::kReservationConflict, [&] { return table.preempt("b", kB, kA, kType7); });
  expect_refused(Errc::kReservationConflict, [&] { return table.preempt("a", kA, kB, kType7); });

  auto all = table.preempt("a", kA, kNoKey, kType5);
  ASSERT_TRUE(all);
  EXPECT_THAT(*all, ElementsAre(Queued{"c", kRegistrationsPreempted}));
  EXPECT_EQ(table.read_reservation().type, kType5);
  EXPECT_EQ(table.read_reservation().holder, kA);
  EXPECT_THAT(table.read_keys().keys, ElementsAre(kA));
}

TEST_F(ReservationTableTest, PreemptUnderType5) {
  register_all();
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  expect_refused(Errc::kUnsupported, [&] { return table.preempt("b", kB, kNoKey, kType5); });

  auto not_holder = table.preempt("b", kB, kC, kType7);  // the type matters only where the reservation is preempted
  ASSERT_TRUE(not_holder);
  EXPECT_THAT(*not_holder, ElementsAre(Queued{"c", kRegistrationsPreempted}));
  EXPECT_EQ(table.read_reservation().holder, kA);

  ASSERT_TRUE(table.register_key("c", kNoKey, kC, Aptpl::kYes));
  expect_refused(Errc::kUnsupported, [&] { return table.preempt("b", kB, kA, static_cast<ReservationType>(3)); });
  auto holder = table.preempt("b", kB, kA, kType5);
  ASSERT_TRUE(holder);
  EXPECT_THAT(*holder, ElementsAre(Queued{"a", kRegistrationsPreempted}));
  EXPECT_EQ(table.read_reservation().type, kType5);
  EXPECT_EQ(table.read_reservation().holder, kB);

  auto other_type = table.preempt("c", kC, kB, kType7);
  ASSERT_TRUE(other_type);
  EXPECT_THAT(*other_type, ElementsAre(Queued{"b", kRegistrationsPreempted}));
  EXPECT_EQ(table.read_reservation().type, kType7);

  ASSERT_TRUE(table.register_key("a", kNoKey, kA, Aptpl::kYes));
  auto to_type5 = table.preempt("c", kC, kNoKey, kType5);
  ASSERT_TRUE(to_type5);
  ASSERT_TRUE(table.register_key("a", kNoKey, kA, Aptpl::kYes));
  ASSERT_TRUE(table.register_key("b", kNoKey, kB, Aptpl::kYes));
  auto changed = table.preempt("a", kA, kC, kType7);
  ASSERT_TRUE(changed);
  EXPECT_THAT(*changed, UnorderedElementsAre(Queued{"c", kRegistrationsPreempted}, Queued{"b", kReservationsReleased}));
}

TEST_F(ReservationTableTest, PreemptWithoutAReservationAndOfOneself) {
  register_all();
  expect_refused(Errc::kUnsupported, [&] { return table.preempt("a", kA, kNoKey, kType7); });
  auto queued = table.preempt("a", kA, kB, kType7);
  ASSERT_TRUE(queued);
  EXPECT_EQ(table.read_reservation().type, ReservationType::kNone);
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  ASSERT_TRUE(table.preempt("a", kA, kA, kType7));  // the holder preempts itself: it stays registered
  EXPECT_EQ(table.read_reservation().type, kType7);
  EXPECT_EQ(table.key_of("a"), kA);
  auto left = table.preempt("a", kA, kA, kType7);
  ASSERT_TRUE(left);
  EXPECT_THAT(*left, IsEmpty());
  EXPECT_EQ(table.key_of("a"), kNoKey);
  EXPECT_EQ(table.read_reservation().type, kType7);
}

TEST_F(ReservationTableTest, PowerLossKeepsTheTableOnlyWithAptpl) {
  register_all(Aptpl::kYes);
  ASSERT_TRUE(table.reserve("a", kA, kType5));
  table.power_loss();
  EXPECT_THAT(table.read_keys().keys, ElementsAre(kA, kB, kC));
  EXPECT_EQ(table.read_keys().generation, 0u);
  EXPECT_EQ(table.read_reservation().holder, kA);
  ASSERT_TRUE(table.register_key("d", kNoKey, PrKey{0xd}, Aptpl::kNo));  // the last one counts
  table.power_loss();
  EXPECT_EQ(table, ReservationTable());
}

TEST_F(ReservationTableTest, RefusesMoreNexusesThanItHoldsAndNamesItCannotStore) {
  for (std::uint64_t i = 0; i < ReservationTable::kMaxRegistrations; ++i) {
    ASSERT_TRUE(table.register_key(std::to_string(i), kNoKey, PrKey{i + 1}, Aptpl::kYes));
  }
  expect_refused(Errc::kUnsupported, [&] { return table.register_key("x", kNoKey, kA, Aptpl::kYes); });
  EXPECT_TRUE(table.register_key("0", PrKey{1}, PrKey{5000}, Aptpl::kYes));
  table = ReservationTable();
  expect_refused(Errc::kUnsupported, [&] { return table.register_key("", kNoKey, kA, Aptpl::kYes); });
  const std::string longest(ReservationTable::kMaxNexusName, 'n');
  expect_refused(Errc::kUnsupported, [&] { return table.register_key(longest + "n", kNoKey, kA, Aptpl::kYes); });
  ASSERT_TRUE(table.register_key(longest, kNoKey, kA, Aptpl::kYes));
  EXPECT_EQ(*ReservationTable::deserialize(table.serialize()), table);
}

TEST_F(ReservationTableTest, BytesAndBack) {
  EXPECT_EQ(*ReservationTable::deserialize(table.serialize()), table);
  register_all();
  EXPECT_EQ(*ReservationTable::deserialize(table.serialize()), table);
  ASSERT_TRUE(table.reserve("b", kB, kType5));
  EXPECT_EQ(*ReservationTable::deserialize(table.serialize()), table);
  ASSERT_TRUE(table.preempt("a", kA, kB, kType7));
  EXPECT_EQ(*ReservationTable::deserialize(table.serialize()), table);
}

TEST_F(ReservationTableTest, DamagedBytesAreAnError) {
  register_all();
  ASSERT_TRUE(table.reserve("b", kB, kType5));
  const auto bytes = table.serialize();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto damaged = bytes;
    damaged[i] ^= std::byte{0x10};
    EXPECT_FALSE(ReservationTable::deserialize(damaged)) << "byte " << i;
    EXPECT_FALSE(ReservationTable::deserialize(std::span(bytes).first(i))) << "first " << i;
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(ReservationTable::deserialize(longer));
}

// Actions at random: whatever happens, the table keeps its own rules and survives its bytes.
TEST_F(ReservationTableTest, KeepsItsInvariantsUnderRandomActions) {
  constexpr std::uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  SeededRandom random(kSeed);
  for (int step = 0; step < 20'000; ++step) {
    const std::string nexus(1, static_cast<char>('a' + random.below(4)));
    const PrKey key = random.one_in(4) ? PrKey{random.below(4)} : table.key_of(nexus);
    const PrKey other{random.below(4)};
    const auto type = random.one_in(2) ? kType5 : kType7;
    const auto before = table.read_keys();
    Result<ReservationTable::Attentions> done;
    switch (random.below(6)) {
      case 0:
        done = table.register_key(nexus, key, other, Aptpl::kYes);
        break;
      case 1:
        done = table.register_ignore(nexus, other, Aptpl::kNo);
        break;
      case 2:
        done = table.reserve(nexus, key, type);
        break;
      case 3:
        done = table.release(nexus, key, type);
        break;
      case 4:
        done = table.preempt(nexus, key, other, type);
        break;
      default:
        if (random.one_in(10)) done = table.clear(nexus, key);
    }
    const auto keys = table.read_keys().keys;
    const auto state = table.read_reservation();
    ASSERT_EQ(std::ranges::count(keys, kNoKey), 0);
    if (state.type != ReservationType::kNone) ASSERT_FALSE(keys.empty());
    if (state.type == kType5) ASSERT_EQ(std::ranges::count(keys, state.holder) > 0, true);
    if (keys.size() < before.keys.size()) ASSERT_GT(table.read_keys().generation, before.generation);
    if (done) {
      for (const Queued& queued : *done) ASSERT_NE(queued.nexus, nexus);
    }
    ASSERT_EQ(*ReservationTable::deserialize(table.serialize()), table);
  }
}

}  // namespace
}  // namespace cawfs
