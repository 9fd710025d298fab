/*
 * The node table, registrations, heartbeats, the self-lease, fencing and recovery: A agents, of which the first S are
 * members with a slot each and the others come to join. Design §7, §4 rule 7, §10 invariants 2 and 6; the code is
 * disklock/cluster_member.cpp, cluster_join.cpp, cluster_watch.cpp, cluster_leave.cpp, recovery.cpp, fence.cpp,
 * suspicion.cpp, lease.h, join_plan.cpp and slot_table.cpp (others_keep_the_reservation).
 *
 * Checked: no write of a node, or of a recoverer, lands once somebody else replays what it stood for; no node serves
 * from memory by then; one replays a slot at a time; and after any crashes, each pause as long as you like, all comes
 * to rest with every dead node recovered and every live one a member or out (deadlock).
 *
 * How it stands for the code:
 * - Anybody may sleep for any time between any two steps. Time passes in ticks, the same for all; a lease is one, the
 *   dead-time two.
 * - An agent lives once: its key is its number, and so is its incarnation. COMPARE AND WRITE is one step (caw.cpp
 *   settles its outcome; locks.pml has lost replies), refused where the key is gone.
 * - A plain write is on its way, then in the target's backend, then lands. Those of one nexus arrive in order, and a
 *   REGISTER waits for them (GuardedDevice closes its gate first). An eviction ends those on their way, too, a LUN
 *   reset those in the backend.
 * - Once it is calm nobody crashes any more, and live nodes beat in time: so everything has to come to rest.
 *
 * Left out: the key sweep, a host's own old slot, exclusive nodes, tools that fence, reservations lost by a target,
 * damaged journals.
 */
#ifndef A
#define A 3
#endif
#ifndef S
#define S 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef WRITES
#define WRITES 1 /* plain writes of agent 0, replay aside */
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef SUSPICIONS
#define SUSPICIONS 1 /* before it is calm */
#endif

#define NOBODY 7
#define LEASE 1
#define DEAD 2

/* Slot records. */
#define CLEAN 0
#define ACTIVE 1
#define RECOVERING 2

/* What an agent is. */
#define OUT 0    /* wants to join */
#define MEMBER 1 /* stands in a record, as far as it knows */
#define JOINER 2 /* recovers the slot that it will take */
#define GONE 3   /* has left, or has withdrawn */

/* How far a recovery is. */
#define IDLE 0
#define SUSPECTS 1
#define CLAIMED 2
#define GIVES_BACK 3
#define PREEMPTS 4
#define EVICTS 5
#define READS_BACK 6
#define MARKS 7
#define REPLAYS 8
#define WAITS 9
#define EMPTIES 10
#define REVIVES 11
#define SHUTS_OUT 12 /* the same, after the joiner's fence */
#define STANDS_UP 13

/* What the own record says. */
#define UNREAD 0
#define MINE 1
#define BEING_RECOVERED 2
#define LOST 3

/* A plain write. */
#define ON_ITS_WAY 1
#define IN_BACKEND 2
#define LANDED 3

/* The device. */
byte state[S];
byte node[S];          /* whose key stands in the record */
byte recoverer[S];
bool within[S];        /* the recoverer is a joiner, which has no other slot */
bool fenced[S];
bool again[S];         /* the recoverer has taken the node's place, and is to be fenced */
bool key[A];

/* The agents. */
bool up[A];
byte is[A];
byte slot[A];
bool gate[A];          /* writes go out */
byte regains[A];       /* steps of restore_registration() */
byte own[A];
bool was_missing[A];
byte lease[A];         /* ticks that are left */
bool beat[A];          /* has landed, and is not answered yet */
byte beat_left[A];     /* of the lease that it gives */
byte returning[A];     /* the lease that heartbeats give back once the own record has been read */
byte look[A];          /* the own record, as read */
byte look_left[A];     /* of the lease, by heartbeats that had completed when it was read */
byte write[A];
bool replay[A];        /* ... is one of a replay */
byte job[A];
byte subject[A];       /* the slot that is recovered */
byte seen[A];          /* the claim's victim and what the record said before */
byte seen_state[A];
byte seen_recoverer[A];
bool seen_within[A];
bool seen_fenced[A];

/* What each watcher knows of each slot's node, and of its joiner. */
byte age[A * S];       /* ticks since the last heartbeat landed: as if it had been read at once */
byte joiner_age[A * S];
bool moved[A];         /* one has landed since it suspected the slot */

byte crashes = CRASHES;
byte writes = WRITES;
byte leaves = LEAVES;
byte suspicions = SUSPICIONS;
bool calm;

/* What no agent knows: replaced[n]: another replays what n stood for. */
bool replaced[A];
hidden byte i, j;

#define AT(n, s) ((n)*S + (s))
#define REGISTERED (key[0] || key[1] || (A > 2 && key[2 % A]) || (A > 3 && key[3 % A]))
/* Type 7: all registrants hold the reservation, which ends with the last. */
#define ACCEPTS(n) (key[n] || !REGISTERED)
#define RUNS(n) (up[n] && (is[n] == MEMBER || is[n] == JOINER))
#define STANDS(n, s) \
  ((state[s] == ACTIVE && node[s] == n) || (state[s] == RECOVERING && within[s] && recoverer[s] == n))
#define RECOVERS(n, s) (state[s] == RECOVERING && recoverer[s] == n)
#define JUDGED(n) \
  (STANDS(n, slot[n]) -> MINE : \
   (state[slot[n]] == RECOVERING && node[slot[n]] == n && !fenced[slot[n]] -> BEING_RECOVERED : LOST))
/* A recoverer with a slot of its own ends where it is fenced there, or has left. */
#define MAY_WRITE(n) \
  (slot[n] < S && state[slot[n] % S] != CLEAN && node[slot[n] % S] == n && !fenced[slot[n] % S])
#define LIVES(n) (up[n] && (is[n] == MEMBER || is[n] == JOINER))

inline end_job(n) {
  job[n] = IDLE; subject[n] = 0; moved[n] = false; seen[n] = 0;
  seen_state[n] = 0; seen_recoverer[n] = 0; seen_within[n] = false; seen_fenced[n] = false
}
inline watch_no_more(n) {
  i = 0;
  do
  :: i < S -> age[AT(n, i)] = 0; joiner_age[AT(n, i)] = 0; i++
  :: else -> break
  od;
  skip
}
inline end_member(n) {
  is[n] = GONE; watch_no_more(n);
  gate[n] = false; regains[n] = 0; own[n] = UNREAD; was_missing[n] = false; lease[n] = 0;
  beat[n] = false; beat_left[n] = 0; returning[n] = 0; look[n] = UNREAD; look_left[n] = 0;
  end_job(n)
}
#define WATCHES(n, s) (up[n] && (is[n] == OUT || is[n] == JOINER || (is[n] == MEMBER && slot[n] != s)))
/* A new subject: everybody begins to count. */
inline count_anew(s) {
  i = 0;
  do
  :: i < A -> age[AT(i, s)] = 0; joiner_age[AT(i, s)] = 0; i++
  :: else -> break
  od;
  skip
}
inline count_joiner_anew(s) {
  i = 0;
  do
  :: i < A -> joiner_age[AT(i, s)] = 0; i++
  :: else -> break
  od;
  skip
}
inline show_life(n) {
  i = 0;
  do
  :: i < A ->
     if
     :: is[n] == MEMBER -> age[AT(i, slot[n])] = 0
     :: is[n] == JOINER -> joiner_age[AT(i, slot[n])] = 0
     fi;
     if
     :: (job[i] == SUSPECTS || job[i] == CLAIMED) && subject[i] == slot[n] && i != n -> moved[i] = true
     :: else
     fi;
     i++
  :: else -> break
  od;
  skip
}
inline suspend(n) {
  lease[n] = 0; returning[n] = 0; look_left[n] = 0
}
inline occupy(n, s) {
  state[s] = ACTIVE; node[s] = n; recoverer[s] = NOBODY; within[s] = false; fenced[s] = false; again[s] = false;
  is[n] = MEMBER; slot[n] = s;
  count_anew(s)
}
inline suspect(n, s) {
  subject[n] = s; seen[n] = node[s];
  seen_state[n] = state[s]; seen_recoverer[n] = recoverer[s]; seen_within[n] = within[s]; seen_fenced[n] = fenced[s]
}
#define AS_SEEN(n) \
  (state[subject[n]] == seen_state[n] && fenced[subject[n]] == seen_fenced[n] && node[subject[n]] == seen[n] && \
   recoverer[subject[n]] == seen_recoverer[n])

#define SILENT(n, s) (age[AT(n, s)] == DEAD)
#ifdef RECOVERER_NOT_FENCED
#define ENDED(n, s) (joiner_age[AT(n, s)] == DEAD || !within[s])
#else
#define ENDED(n, s) \
  (within[s] -> joiner_age[AT(n, s)] == DEAD : recoverer[s] == n || !MAY_WRITE(recoverer[s]))
#endif
/* Nobody has written for an unfenced slot: where node and recoverer are both silent, it may be taken over at once. */
#define BOTH_SILENT(n, s) \
  (!fenced[s] && !within[s] && SILENT(n, s) && slot[recoverer[s] % A] != s && SILENT(n, slot[recoverer[s] % A]))
#define DEAD_AS_SEEN(n, s) \
  ((state[s] == ACTIVE && SILENT(n, s)) || \
   (state[s] == RECOVERING && ((ENDED(n, s) && (fenced[s] || SILENT(n, s))) || BOTH_SILENT(n, s))))
#define REVIVED_AS_SEEN(n, s) (state[s] == RECOVERING && ENDED(n, s) && !fenced[s] && !SILENT(n, s))

/* Conflict, unit attention or new session. One that comes while the gate is closed may go unnoticed. */
inline doubt(n) {
  if
  :: RUNS(n) -> gate[n] = false
  :: else
  fi
}

/* Once it is calm live nodes beat in time. */
#define GROWS(n, s) \
  (WATCHES(n, s) && age[AT(n, s)] < DEAD && state[s] != CLEAN && !(calm && node[s] != NOBODY && LIVES(node[s])))
#define JOINER_GROWS(n, s) \
  (WATCHES(n, s) && joiner_age[AT(n, s)] < DEAD && within[s] && !(calm && LIVES(recoverer[s])))
#define KEEPS_LEASE(n) (calm && RUNS(n) && JUDGED(n) == MINE)
inline tick() {
  i = 0;
  do
  :: i < A ->
     if
     :: lease[i] > 0 && !KEEPS_LEASE(i) -> lease[i]--
     :: else
     fi;
     if
     :: beat_left[i] > 0 -> beat_left[i]--
     :: else
     fi;
     if
     :: returning[i] > 0 -> returning[i]--
     :: else
     fi;
     if
     :: look_left[i] > 0 -> look_left[i]--
     :: else
     fi;
     j = 0;
     do
     :: j < S ->
        if
        :: GROWS(i, j) -> age[AT(i, j)]++
        :: else
        fi;
        if
        :: JOINER_GROWS(i, j) -> joiner_age[AT(i, j)]++
        :: else
        fi;
        j++
     :: else -> break
     od;
     i++
  :: else -> break
  od;
  i = 0; j = 0
}
#define TIME_MATTERS(n) \
  ((lease[n] && !KEEPS_LEASE(n)) || beat_left[n] || returning[n] || look_left[n] || COUNTS(n, 0) || \
   (S > 1 && COUNTS(n, 1 % S)) || (S > 2 && COUNTS(n, 2 % S)))
#define COUNTS(n, s) (GROWS(n, s) || JOINER_GROWS(n, s))

proctype clock() {
end:
  do
  :: d_step {
       TIME_MATTERS(0) || TIME_MATTERS(1) || (A > 2 && TIME_MATTERS(2 % A)) || (A > 3 && TIME_MATTERS(3 % A)) -> tick()
     }
  :: d_step { !calm && suspicions == 0 && crashes == 0 -> calm = true }
  od
}

/* --- what an agent stands on -------------------------------------------------------------------------------------- */

/* others_keep_the_reservation() */
#ifdef LAST_UNREGISTERS
#define KEEPS_RESERVATION(n, s) true
#else
#define KEEPS_RESERVATION(n, s) \
  ((state[s] == ACTIVE && node[s] != n && key[node[s]]) || (within[s] && recoverer[s] != n && key[recoverer[s]]))
#endif
#define NEEDED(n, s) (STANDS(n, s) || (state[s] == RECOVERING && node[s] == n && !fenced[s]))
#define KNOWN(n, s) (state[s] != CLEAN && (node[s] == n || recoverer[s] == n))
#if S == 1
#define SOME(X, n) (X(n, 0))
#else
#if S == 2
#define SOME(X, n) (X(n, 0) || X(n, 1))
#else
#define SOME(X, n) (X(n, 0) || X(n, 1) || X(n, 2))
#endif
#endif
#define UNKNOWN_KEY(n) (key[n] && !SOME(KNOWN, n))
#define STRANGERS (UNKNOWN_KEY(0) || UNKNOWN_KEY(1) || (A > 2 && UNKNOWN_KEY(2 % A)) || (A > 3 && UNKNOWN_KEY(3 % A)))
#define FREE(n, s) (state[s] == CLEAN)
#define NOT_DEAD(n, s) (state[s] != CLEAN && !DEAD_AS_SEEN(n, s))
#define MAY_CLAIM(n) (!SOME(FREE, n) && !SOME(NOT_DEAD, n))
/* They beat where that makes a difference. */
#define BEAT_MATTERS(n) \
  ((is[n] == MEMBER && lease[n] == 0 && !returning[n] && look[n] == UNREAD && JUDGED(n) == MINE) || \
   ((!calm || JUDGED(n) == BEING_RECOVERED) && UNSEEN(n)))
#define UNSEEN_BY(n, i) \
  (WATCHES(i, slot[n]) && \
   ((is[n] == MEMBER && (age[AT(i, slot[n])] || MAY_BE_MOVED(i, slot[n]))) || \
    (is[n] == JOINER && joiner_age[AT(i, slot[n])])))
#define MAY_BE_MOVED(n, s) ((job[n] == SUSPECTS || job[n] == CLAIMED) && subject[n] == s && !moved[n])
#define UNSEEN(n) \
  (UNSEEN_BY(n, 0) || UNSEEN_BY(n, 1) || (A > 2 && UNSEEN_BY(n, 2 % A)) || (A > 3 && UNSEEN_BY(n, 3 % A)))
/* A COMPARE AND WRITE goes out. */
#define MAY_CAW(n) (gate[n] && (is[n] == JOINER || lease[n] > 0))
/* Of two nodes that have claimed each other neither has the lease. */
#ifdef GIVES_BACK_UNDER_LEASE
#define MAY_GIVE_BACK(n) MAY_CAW(n)
#else
#define MAY_GIVE_BACK(n) gate[n]
#endif
#define SWEEPS(n) (calm && RUNS(n) && is[n] == MEMBER && lease[n] > 0 && key[n])
#define LIVE_JOB(n) (job[n] != IDLE && RUNS(n))

inline give_up(n) {
  if
  :: is[n] == JOINER && job[n] == SUSPECTS -> is[n] = OUT; slot[n] = 0; gate[n] = false; end_job(n)
  :: is[n] == JOINER && job[n] != SUSPECTS -> end_member(n)
  :: else -> end_job(n)
  fi
}
inline lose_write(n) {
  write[n] = 0;
  replay[n] = false;
  if
  :: job[n] == WAITS -> job[n] = REPLAYS
  :: else
  fi
}

#define SLOT_STEPS(n, s) \
  :: d_step { \
       up[n] && is[n] == MEMBER && job[n] == IDLE && lease[n] > 0 && s != slot[n] && (calm || suspicions > 0) && \
       DEAD_AS_SEEN(n, s) -> \
       if \
       :: !calm -> suspicions-- \
       :: else \
       fi; \
       suspect(n, s); \
       job[n] = SUSPECTS \
     } \
  :: d_step { \
       up[n] && is[n] == MEMBER && job[n] == IDLE && lease[n] > 0 && s != slot[n] && REVIVED_AS_SEEN(n, s) && \
       !(calm && STRANGERS) -> \
       suspect(n, s); \
       job[n] = REVIVES \
     } \
  :: d_step { /* a joiner takes a slot */ \
       up[n] && is[n] == OUT && key[n] && state[s] == CLEAN -> occupy(n, s); gate[n] = true \
     } \
  :: d_step { \
       up[n] && is[n] == OUT && key[n] && MAY_CLAIM(n) && (calm || suspicions > 0) -> \
       if \
       :: !calm -> suspicions-- \
       :: else \
       fi; \
       suspect(n, s); \
       is[n] = JOINER; \
       slot[n] = s; \
       gate[n] = true; \
       job[n] = SUSPECTS \
     }

#ifdef LATER_BEAT_COUNTS
bool came[A]; /* broken: a heartbeat had completed when the record was read, but not the one that gives the lease */
#define PROMISED(n) (came[n])
#else
#define PROMISED(n) (returning[n])
#endif

proctype agent(byte n) {
  byte v;
end:
  do
  /* heartbeats and the lease (heartbeat.cpp, lease.h) */
  :: d_step {
       RUNS(n) && gate[n] && !beat[n] && (is[n] == MEMBER || STANDS(n, slot[n])) && BEAT_MATTERS(n) ->
       if
       :: ACCEPTS(n) ->
          show_life(n);
          if
          :: is[n] == MEMBER -> beat[n] = true; beat_left[n] = LEASE
          :: else
          fi
       :: else -> doubt(n)
       fi
     }
  :: d_step {
       RUNS(n) && beat[n] ->
       beat[n] = false;
#ifdef LATER_BEAT_COUNTS
       came[n] = true;
#endif
#ifdef LEASE_FROM_ANSWER
       beat_left[n] = LEASE;
#endif
       if
       :: lease[n] > 0 && beat_left[n] > lease[n] -> lease[n] = beat_left[n]
#ifdef LEASE_WITHOUT_LOOK
       :: lease[n] == 0 -> lease[n] = beat_left[n]
#else
       :: lease[n] == 0 && beat_left[n] > returning[n] -> returning[n] = beat_left[n]
#endif
       :: else
       fi;
       beat_left[n] = 0;
       assert(lease[n] == 0 || !replaced[n])
     }
  :: d_step {
       RUNS(n) && is[n] == MEMBER && look[n] == UNREAD && ((lease[n] == 0 && PROMISED(n)) || JUDGED(n) != MINE) &&
       !(calm && JUDGED(n) == BEING_RECOVERED && key[n] && lease[n] == 0 && !returning[n]) ->
       look[n] = JUDGED(n);
       look_left[n] = returning[n]
     }
  :: d_step {
       RUNS(n) && look[n] == MINE ->
#ifdef LATER_BEAT_COUNTS
       look_left[n] = (came[n] -> returning[n] : 0);
       came[n] = false;
#endif
       if
       :: look_left[n] > 0 && lease[n] == 0 -> lease[n] = look_left[n]; returning[n] = 0; doubt(n)
       :: else
       fi;
       look[n] = UNREAD;
       look_left[n] = 0;
       assert(lease[n] == 0 || !replaced[n])
     }
  :: d_step {
       RUNS(n) && look[n] == BEING_RECOVERED ->
       suspend(n);
       look[n] = UNREAD;
       if
       :: !key[n] -> end_member(n)
       :: else
       fi
     }
  :: d_step { RUNS(n) && look[n] == LOST -> end_member(n) }

  /* plain writes */
  :: d_step {
       RUNS(n) && is[n] == MEMBER && n == 0 && gate[n] && writes > 0 && write[n] == 0 && !calm ->
       writes--;
       write[n] = ON_ITS_WAY
     }
  :: d_step {
       write[n] == ON_ITS_WAY ->
       if
       :: ACCEPTS(n) -> write[n] = IN_BACKEND
       :: else -> lose_write(n); doubt(n)
       fi
     }
  :: d_step {
       write[n] == IN_BACKEND ->
       assert(!replaced[n]);
       if
       :: replay[n] && RUNS(n) ->
          assert(state[subject[n]] == RECOVERING && fenced[subject[n]]);
          assert(again[subject[n]] -> node[subject[n]] == n : recoverer[subject[n]] == n);
          write[n] = LANDED
       :: else -> write[n] = 0; replay[n] = false
       fi
     }

  /* the gate (cluster_member.cpp, restore_registration) */
  :: d_step {
       RUNS(n) && !gate[n] && regains[n] == 0 && write[n] != ON_ITS_WAY && write[n] != IN_BACKEND ->
       own[n] = JUDGED(n);
       regains[n] = 1;
       if
       :: own[n] == LOST -> end_member(n)
       :: else
       fi
     }
  :: d_step {
       RUNS(n) && regains[n] == 1 ->
       was_missing[n] = !key[n];
       key[n] = key[n] || own[n] == MINE;
       regains[n] = 2
     }
  :: d_step {
       RUNS(n) && regains[n] == 2 ->
       if
#ifndef NO_SECOND_LOOK
       :: own[n] == MINE -> own[n] = JUDGED(n)
#endif
       :: else
       fi;
       if
       :: own[n] == LOST || (own[n] == BEING_RECOVERED && was_missing[n]) -> end_member(n)
       :: else ->
          if
          :: own[n] == BEING_RECOVERED -> suspend(n)
          :: else
          fi;
          gate[n] = true;
          regains[n] = 0;
          own[n] = UNREAD;
          was_missing[n] = false
       fi
     }

  :: d_step { RUNS(n) && is[n] == MEMBER && gate[n] && !key[n] -> doubt(n) } /* looked at each half dead-time */

  /* coming and going (cluster_join.cpp, cluster_leave.cpp) */
  :: d_step { up[n] && is[n] == OUT && !key[n] && (SOME(FREE, n) || MAY_CLAIM(n)) -> key[n] = true }
  :: d_step {
       RUNS(n) && is[n] == MEMBER && leaves > 0 && MAY_CAW(n) && key[n] && JUDGED(n) == MINE && job[n] == IDLE &&
       write[n] == 0 ->
       leaves--;
       v = slot[n];
       state[v] = CLEAN;
       node[v] = NOBODY;
       count_anew(v);
       v = 0;
       end_member(n)
     }
  :: d_step { up[n] && is[n] == GONE && key[n] && !SOME(NEEDED, n) && SOME(KEEPS_RESERVATION, n) -> key[n] = false }
#if CRASHES > 0
  :: d_step { RUNS(n) && crashes > 0 && !calm -> crashes--; end_member(n); up[n] = false }
#endif

  /* recovery (recovery.cpp, fence.cpp) */
  SLOT_STEPS(n, 0)
#if S > 1
  SLOT_STEPS(n, 1)
#endif
#if S > 2
  SLOT_STEPS(n, 2)
#endif
  :: d_step {
       LIVE_JOB(n) && job[n] == SUSPECTS && MAY_CAW(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && AS_SEEN(n) ->
          if
#ifndef JOINER_NOT_FENCED
          :: within[v] && fenced[v] && !again[v] -> again[v] = true; node[v] = recoverer[v]
#endif
          :: else
          fi;
          seen[n] = node[v];
          state[v] = RECOVERING;
          recoverer[v] = n;
          within[v] = is[n] == JOINER;
          count_joiner_anew(v);
          job[n] = CLAIMED
       :: else -> give_up(n)
       fi;
       v = 0
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == CLAIMED ->
       v = subject[n];
       if
       :: fenced[v] && !again[v] -> job[n] = REPLAYS
       :: fenced[v] && again[v] -> job[n] = PREEMPTS
#ifndef NO_SECOND_READ
       :: !fenced[v] && moved[n] -> job[n] = GIVES_BACK
#endif
       :: else -> job[n] = PREEMPTS
       fi;
       moved[n] = false;
       if
       :: job[n] != GIVES_BACK ->
          seen_state[n] = 0; seen_recoverer[n] = 0; seen_within[n] = false; seen_fenced[n] = false
       :: else
       fi;
       v = 0
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == GIVES_BACK && MAY_GIVE_BACK(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && RECOVERS(n, v) ->
          state[v] = seen_state[n];
          recoverer[v] = seen_recoverer[n];
          within[v] = seen_within[n];
          count_joiner_anew(v);
          job[n] = SUSPECTS;
          give_up(n)
       :: else -> give_up(n)
       fi;
       v = 0
     }
#ifdef REPLAY_BEFORE_FENCE
  :: d_step { LIVE_JOB(n) && job[n] == PREEMPTS -> job[n] = MARKS }
#else
  :: d_step {
       LIVE_JOB(n) && job[n] == PREEMPTS ->
       if
       :: key[n] ->
          if
          :: seen[n] != NOBODY && seen[n] != n -> key[seen[n]] = false; doubt(seen[n])
          :: else
          fi;
          job[n] = EVICTS
       :: !key[n] -> doubt(n)
       fi
     }
#endif
#ifdef NO_RESET
  :: d_step { LIVE_JOB(n) && job[n] == EVICTS -> job[n] = READS_BACK }
#else
  :: d_step {
       LIVE_JOB(n) && job[n] == EVICTS && (seen[n] == NOBODY || write[seen[n] % A] != IN_BACKEND) ->
       if
       :: seen[n] != NOBODY && write[seen[n]] == ON_ITS_WAY -> lose_write(seen[n])
       :: else
       fi;
       job[n] = READS_BACK
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == EVICTS -> /* the eviction was refused */
       i = 0;
       do
       :: i < A ->
          if
          :: write[i] == IN_BACKEND -> lose_write(i)
          :: else
          fi;
          i++
       :: else -> break
       od;
       job[n] = READS_BACK
     }
#endif
  :: d_step {
       LIVE_JOB(n) && job[n] == READS_BACK ->
       if
       :: seen[n] != NOBODY && seen[n] != n && key[seen[n] % A] -> job[n] = PREEMPTS
       :: !key[n] -> job[n] = PREEMPTS
       :: else -> job[n] = STANDS_UP
       fi
     }
  :: d_step { /* the victim has claimed this node: it cannot do anything about it any more */
       LIVE_JOB(n) && job[n] == STANDS_UP && gate[n] ->
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) ->
          if
          :: is[n] == MEMBER && JUDGED(n) == BEING_RECOVERED && recoverer[slot[n]] == seen[n] ->
             v = slot[n];
             state[v] = ACTIVE;
             recoverer[v] = NOBODY;
             within[v] = false;
             v = 0
          :: else
          fi;
          job[n] = MARKS
       fi
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == MARKS && MAY_CAW(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && RECOVERS(n, v) ->
          fenced[v] = true;
          if
          :: again[v] -> again[v] = false; node[v] = NOBODY
          :: else
          fi;
          if
          :: seen[n] != NOBODY -> replaced[seen[n]] = true; assert(!up[seen[n]] || lease[seen[n]] == 0)
          :: else
          fi;
          job[n] = REPLAYS
       :: else -> give_up(n)
       fi;
       v = 0
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == REPLAYS && gate[n] && write[n] == 0 ->
       if
       :: RECOVERS(n, subject[n]) && fenced[subject[n]] && !again[subject[n]] ->
          write[n] = ON_ITS_WAY; replay[n] = true; job[n] = WAITS
       :: else -> give_up(n)
       fi
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == WAITS && write[n] == LANDED -> write[n] = 0; replay[n] = false; job[n] = EMPTIES
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == EMPTIES && MAY_CAW(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && RECOVERS(n, v) && is[n] == JOINER -> occupy(n, v); end_job(n)
       :: ACCEPTS(n) && RECOVERS(n, v) && is[n] != JOINER ->
          state[v] = CLEAN; node[v] = NOBODY; recoverer[v] = NOBODY; fenced[v] = false; again[v] = false;
          count_anew(v);
          end_job(n)
       :: else -> give_up(n)
       fi;
       v = 0
     }
  /* a node that lives, claimed by one that has ended */
  :: d_step {
       LIVE_JOB(n) && job[n] == REVIVES && seen_within[n] && MAY_CAW(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && AS_SEEN(n) && !fenced[v] -> recoverer[v] = n; within[v] = false; job[n] = SHUTS_OUT
       :: else -> end_job(n)
       fi;
       v = 0
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == SHUTS_OUT ->
       if
       :: key[n] ->
          key[seen_recoverer[n]] = false;
          doubt(seen_recoverer[n]);
          seen_recoverer[n] = n;
          seen_within[n] = false; seen_fenced[n] = false;
          job[n] = REVIVES
       :: !key[n] -> doubt(n)
       fi
     }
  :: d_step {
       LIVE_JOB(n) && job[n] == REVIVES && !seen_within[n] && MAY_CAW(n) ->
       v = subject[n];
       if
       :: !ACCEPTS(n) -> doubt(n)
       :: ACCEPTS(n) && AS_SEEN(n) && !fenced[v] && !STRANGERS ->
          state[v] = ACTIVE; recoverer[v] = NOBODY; within[v] = false
       :: else
       fi;
       end_job(n);
       v = 0
     }
  /* the key sweep: of those who have been unknown for long */
  :: d_step { SWEEPS(n) && UNKNOWN_KEY(0) && n != 0 -> key[0] = false; doubt(0) }
  :: d_step { SWEEPS(n) && UNKNOWN_KEY(1) && n != 1 -> key[1] = false; doubt(1) }
#if A > 2
  :: d_step { SWEEPS(n) && UNKNOWN_KEY(2) && n != 2 -> key[2] = false; doubt(2) }
#endif
  od
}

/* Nothing goes on any more. Where no member has its lease, and nobody may claim, a third is waited for. */
proctype everything_is_at_rest() {
  byte s;
  bool anybody;
end:
  atomic {
    timeout && calm ->
    s = 0;
    do
    :: s < A -> anybody = anybody || (up[s] && is[s] == MEMBER && lease[s] > 0); s++
    :: else -> break
    od;
    s = 0;
    do
    :: s < A && anybody ->
       assert(!RUNS(s) || (is[s] == MEMBER && gate[s] && lease[s] > 0 && key[s] && JUDGED(s) == MINE));
       assert(!up[s] || is[s] != OUT || !SOME(FREE, s));
       assert(!RUNS(s) || job[s] == IDLE);
       s++
    :: else -> break
    od;
    s = 0;
    do
    :: s < S && anybody ->
       assert(state[s] == CLEAN || (state[s] == ACTIVE && up[node[s]] && is[node[s]] == MEMBER));
       s++
    :: else -> break
    od;
    skip
  }
}

init {
  byte n;
  atomic {
    do
    :: n < S -> recoverer[n] = NOBODY; node[n] = n; state[n] = ACTIVE; n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < A ->
       up[n] = true;
       if
       :: n < S -> is[n] = MEMBER; slot[n] = n; key[n] = true; gate[n] = true; lease[n] = LEASE
       :: else
       fi;
       run agent(n);
       n++
    :: else -> break
    od;
    run clock();
    run everything_is_at_rest();
    n = 0
  }
}
