/*
 * Journals and locks: N nodes change blocks under two locks, commit, write in place and let go; a node that is suspected
 * is fenced, and its journal replayed against the locks' generations, by a recoverer that may be suspected itself, or cut
 * short by a power cut. Design §6.2 rule 3, §7, §8; the code is journal/commit.cpp, checkpoint.cpp,
 * committed_blocks.cpp, replay.cpp and disklock/recovery.cpp (complete).
 *
 * Lock 0 is an inode's, lock 1 an allocation group's.
 *   block 0  under lock 0: the inode; a version, and FREED once it has let block 2 go
 *   block 1  under lock 1: the bitmap; 0: block 2 is the inode's, 1: it is free, 2: it holds data
 *   block 2  under lock 0 while it is the inode's (a tree block): a version; then DATA, without a journal
 *
 * Checked: whoever takes a lock reads everything that was committed, and everything that another node has read before
 * (§10 invariants 3 and 5); a transaction over both locks is there whole or not at all (4); nothing of a fenced node
 * lands once replay has begun (2); file data stands where a committed bitmap says; a journal is empty when its slot is
 * taken; in the end every slot has been recovered (deadlock). Everything is counted, so there must be no cycle (livelock).
 *
 * How it stands for the code:
 * - The log is kept as what replay makes of it: the newest image of each block, and none that a later record revokes. A
 *   record lands whole (it has a checksum) and durable (FUA).
 * - vol is what the device answers, dur what it has after a power cut. A power cut ends all nodes.
 * - A suspected node goes on with commits and writes until it is fenced, as one that has only been asleep. A crash is
 *   that without going on. What is on its way when it is fenced never lands.
 * - Locks are granted in one step (locks.pml), EX only. The recoverers are agents beside the nodes: whether a survivor or
 *   a joiner recovers makes no difference to the journal. That the fence is one is assumed.
 *
 * Left out: several commits in flight, wrapping of the ring, torn records (tests/unit/journal has those).
 */
#ifndef N
#define N 3
#endif
#ifndef GRANTS
#define GRANTS 4
#endif
#ifndef VERSIONS
#define VERSIONS 1 /* of blocks 0 and 2 */
#endif
#ifndef INODE_VERSIONS
#define INODE_VERSIONS VERSIONS /* of block 0 */
#endif
/* ONE_BLOCK: block 0 alone is changed, under lock 0. */
#ifndef SUSPECTS
#define SUSPECTS 1
#endif
#ifndef TAKEOVERS
#define TAKEOVERS 1 /* recoverers suspected */
#endif
#ifndef CUTS
#define CUTS 1
#endif

#define BLOCKS 3
#define BIT(b) (1 << (b))
#define OF(n, b) ((n)*BLOCKS + (b))
#define LOCK_OF(b) ((b) == 1 -> 1 : 0)
#define COVERS(l) ((l) == 0 -> 5 : 2) /* the blocks under a lock */
#define HOLD(n, l) hold[(n)*2 + (l)]
#define VERSION(x) ((x)&7)
#define FREED 8
#define DATA 15
#define NOBODY 255

#define ACTIVE 0
#define RECOVERING 1
#define CLEAN 2

/* The device. */
byte vol[BLOCKS];
byte dur[BLOCKS];
byte owner[2] = NOBODY;
byte owner_inc[2];
byte generation[2];
byte image[N * BLOCKS]; /* the journals: version + 1, 0: no image */
byte tag[N * BLOCKS];   /* the tenure's generation */
byte record[N];
byte incarnation[N];
bool fenced[N];
byte recoverer[N] = NOBODY;

/* The nodes. */
byte hold[N * 2];       /* the generation; 0: not held */
byte mem[N * BLOCKS];   /* as changed by the running transaction */
byte com[N * BLOCKS];   /* as committed */
byte running[N];        /* blocks that the running transaction has changed */
bool frees[N];          /* it frees block 2 */
byte sealed[N];         /* blocks in the record that is being written */
bool revokes[N];        /* it frees block 2 */
byte commit[N];         /* 1: sent, 2: it stands in the journal */
byte unplaced[N];       /* blocks committed, not in place */
byte write[N];          /* 1 + block that is being written in place; + 4: it has landed */
byte value[N];
byte data[N];           /* DATA into block 2: 1: sent, 2: landed, 3: flushed */
bool refused[N];        /* by the device */

/* Two recoverers. */
byte step[2]; /* 0: idle, 1: claimed, 2..4: replays block 0..2, 5: flushes, 6: empties the journal, 7: gives the slot free */
byte slot[2];
byte replays[2]; /* 1 + block on its way in place */

byte grants = GRANTS;
byte suspects = SUSPECTS;
byte takeovers = TAKEOVERS;
byte cuts = CUTS;

/* What no node knows: what must be read from now on. */
byte must[BLOCKS];
hidden byte b, s;

inline forget(n) {
  b = 0;
  do
  :: b < BLOCKS -> mem[OF(n, b)] = 0; com[OF(n, b)] = 0; b++
  :: else -> break
  od;
  HOLD(n, 0) = 0; HOLD(n, 1) = 0; running[n] = 0; frees[n] = false; sealed[n] = 0; revokes[n] = false;
  commit[n] = 0; unplaced[n] = 0; write[n] = 0; value[n] = 0; data[n] = 0
}
inline flush() {
  dur[0] = vol[0]; dur[1] = vol[1]; dur[2] = vol[2]
}

#define STALE(l) (owner[l] == NOBODY || record[owner[l]] == CLEAN || incarnation[owner[l]] != owner_inc[l])

inline take(n, l) {
  grants--;
  owner[l] = n;
  owner_inc[l] = incarnation[n];
  generation[l]++;
  HOLD(n, l) = generation[l];
  b = 0;
  do
  :: b < BLOCKS ->
     if
     :: (COVERS(l) & BIT(b)) && !(b == 2 && (vol[0] & FREED)) ->
        assert(vol[b] >= must[b]); /* what was committed, or read, is there */
        must[b] = vol[b];
        mem[OF(n, b)] = vol[b];
        com[OF(n, b)] = vol[b]
     :: else
     fi;
     b++
  :: else -> break
  od;
  assert(l == 0 || vol[1] != 2 || vol[2] == DATA); /* and the data */
  assert(!HOLD(n, 0) || !HOLD(n, 1) || ((mem[OF(n, 0)] & FREED) != 0) == (mem[OF(n, 1)] != 0)) /* whole or not at all */
}

inline land_commit(n) {
  b = 0;
  do
  :: b < BLOCKS ->
     if
     :: sealed[n] & BIT(b) -> image[OF(n, b)] = mem[OF(n, b)] + 1; tag[OF(n, b)] = HOLD(n, LOCK_OF(b))
     :: else
     fi;
     b++
  :: else -> break
  od;
#ifndef NO_REVOKE
  if
  :: revokes[n] -> image[OF(n, 2)] = 0; tag[OF(n, 2)] = 0
  :: else
  fi;
#endif
  commit[n] = 2
}
inline end_commit(n) {
  b = 0;
  do
  :: b < BLOCKS ->
     if
     :: sealed[n] & BIT(b) ->
        com[OF(n, b)] = mem[OF(n, b)];
        if
        :: com[OF(n, b)] > must[b] -> must[b] = com[OF(n, b)]
        :: else
        fi
     :: else
     fi;
     b++
  :: else -> break
  od;
  unplaced[n] = unplaced[n] | sealed[n];
  if
  :: revokes[n] -> unplaced[n] = unplaced[n] & ~BIT(2)
  :: else
  fi;
  sealed[n] = 0; revokes[n] = false; commit[n] = 0
}

inline empty_log(n) {
  b = 0;
  do
  :: b < BLOCKS -> image[OF(n, b)] = 0; tag[OF(n, b)] = 0; b++
  :: else -> break
  od;
  skip
}

#ifdef WRITES_BEFORE_COMMIT
#define WRITABLE(n, b) (((unplaced[n] | running[n]) & BIT(b)) && !((b) == 2 && (frees[n] || revokes[n])))
#define TO_WRITE(n, b) mem[OF(n, b)]
#else
#define WRITABLE(n, b) ((unplaced[n] & BIT(b)) && !((b) == 2 && (frees[n] || revokes[n])))
#define TO_WRITE(n, b) com[OF(n, b)]
#endif
#ifdef RELEASE_BEFORE_IN_PLACE
#define IN_PLACE(n, l) !(running[n] & COVERS(l))
#else
#define IN_PLACE(n, l) (!((running[n] | unplaced[n]) & COVERS(l)) && write[n] == 0)
#endif
#ifdef NO_DATA_FLUSH
#define DATA_READY 2
#else
#define DATA_READY 3
#endif
#ifdef RECOVERER_NOT_FENCED
#define GONE_ON true
#else
#define GONE_ON false
#endif

proctype node(byte n) {
end:
  do
  /* locks */
  :: d_step { record[n] == ACTIVE && !refused[n] && grants > 0 && !HOLD(n, 0) && STALE(0) -> take(n, 0) }
#ifndef ONE_BLOCK
  :: d_step { record[n] == ACTIVE && !refused[n] && grants > 0 && !HOLD(n, 1) && STALE(1) -> take(n, 1) }
#endif
  :: d_step { HOLD(n, 0) && !refused[n] && commit[n] == 0 && IN_PLACE(n, 0) -> owner[0] = NOBODY; HOLD(n, 0) = 0 }
  :: d_step {
       HOLD(n, 1) && !refused[n] && commit[n] == 0 && data[n] == 0 && IN_PLACE(n, 1) ->
       owner[1] = NOBODY;
       HOLD(n, 1) = 0
     }
  /* changes */
  :: d_step {
       record[n] == ACTIVE && HOLD(n, 0) && commit[n] == 0 && VERSION(mem[OF(n, 0)]) < INODE_VERSIONS ->
       mem[OF(n, 0)]++;
       running[n] = running[n] | BIT(0)
     }
#ifndef ONE_BLOCK
  :: d_step {
       record[n] == ACTIVE && HOLD(n, 0) && commit[n] == 0 && !(mem[OF(n, 0)] & FREED) && mem[OF(n, 2)] < VERSIONS ->
       mem[OF(n, 2)]++;
       running[n] = running[n] | BIT(2)
     }
#endif
  :: d_step { /* the inode lets block 2 go */
       record[n] == ACTIVE && HOLD(n, 0) && HOLD(n, 1) && commit[n] == 0 && mem[OF(n, 1)] == 0 ->
       mem[OF(n, 0)] = mem[OF(n, 0)] | FREED;
       mem[OF(n, 1)] = 1;
       running[n] = (running[n] | BIT(0) | BIT(1)) & ~BIT(2);
       frees[n] = true
     }
  :: d_step { /* block 2 becomes data: written first, under the group's lock, once its freeing is committed */
       record[n] == ACTIVE && HOLD(n, 1) && commit[n] == 0 && data[n] == 0 && com[OF(n, 1)] == 1 &&
       mem[OF(n, 1)] == 1 -> data[n] = 1
     }
  :: d_step { data[n] == 1 && !refused[n] -> vol[2] = DATA; data[n] = 2 }
  :: d_step { data[n] == 2 && !refused[n] -> flush(); data[n] = 3 }
  :: d_step {
       record[n] == ACTIVE && data[n] >= DATA_READY && commit[n] == 0 ->
       data[n] = 0;
       mem[OF(n, 1)] = 2;
       running[n] = running[n] | BIT(1)
     }
  /* commit */
  :: d_step {
       running[n] && commit[n] == 0 && !refused[n] && !(frees[n] && (write[n] == 3 || write[n] == 7)) ->
       sealed[n] = running[n];
       revokes[n] = frees[n];
       running[n] = 0;
       frees[n] = false;
       commit[n] = 1
     }
  :: d_step { commit[n] == 1 && !refused[n] -> land_commit(n) }
  :: d_step { commit[n] == 2 -> end_commit(n) }
  /* in place */
  :: d_step { write[n] == 0 && !refused[n] && WRITABLE(n, 0) -> write[n] = 1; value[n] = TO_WRITE(n, 0) }
  :: d_step { write[n] == 0 && !refused[n] && WRITABLE(n, 1) -> write[n] = 2; value[n] = TO_WRITE(n, 1) }
  :: d_step { write[n] == 0 && !refused[n] && WRITABLE(n, 2) -> write[n] = 3; value[n] = TO_WRITE(n, 2) }
  :: d_step { write[n] > 0 && write[n] < 4 && !refused[n] -> vol[write[n] - 1] = value[n]; write[n] = write[n] + 4 }
  :: d_step {
       write[n] > 4 && !refused[n] ->
       flush();
       b = write[n] - 5;
       if
       :: com[OF(n, b)] == value[n] -> unplaced[n] = unplaced[n] & ~BIT(b)
       :: else
       fi;
       write[n] = 0;
       value[n] = 0
     }
  :: d_step { /* the tail moves past what is in place */
       record[n] == ACTIVE && commit[n] == 0 && !unplaced[n] && (image[OF(n, 0)] || image[OF(n, 1)] || image[OF(n, 2)]) ->
       empty_log(n)
     }
  /* the slot again */
  :: d_step {
       record[n] == CLEAN ->
       forget(n);
       assert(!image[OF(n, 0)] && !image[OF(n, 1)] && !image[OF(n, 2)]);
       refused[n] = false;
       incarnation[n]++;
       record[n] = ACTIVE
     }
  od
}

#ifdef NO_GENERATION
#define STANDS(n, b) (owner[LOCK_OF(b)] == n && owner_inc[LOCK_OF(b)] == incarnation[n])
#else
#ifdef NO_OWNER
#define STANDS(n, b) true
#else
#define STANDS(n, b) \
  (owner[LOCK_OF(b)] == n && owner_inc[LOCK_OF(b)] == incarnation[n] && generation[LOCK_OF(b)] == tag[OF(n, b)])
#endif
#endif

/* The recoverer's identity ends; another takes its place. */
inline end_recoverer(who) {
  step[who] = 0; slot[who] = 0; replays[who] = 0
}

inline claim(a, n) {
  record[n] = RECOVERING;
  recoverer[n] = a;
  slot[a] = n;
  step[a] = (fenced[n] -> 2 : 1)
}

/* The two are alike: the first comes first. A node, a slot that nobody recovers, or one whose recoverer is suspected: that one is fenced first. */
#define CLAIMS(a, n) \
  :: d_step { step[a] == 0 && record[n] == ACTIVE && suspects > 0 && (a == 0 || step[0]) -> suspects--; claim(a, n) } \
  :: d_step { step[a] == 0 && record[n] == RECOVERING && recoverer[n] == NOBODY && (a == 0 || step[0]) -> claim(a, n) } \
  :: d_step { \
       step[a] == 0 && record[n] == RECOVERING && recoverer[n] == 1 - a && takeovers > 0 -> \
       takeovers--; \
       if \
       :: !GONE_ON -> end_recoverer(1 - a) \
       :: else \
       fi; \
       claim(a, n) \
     }

proctype agent(byte a) {
  byte n;
end:
  do
  CLAIMS(a, 0)
  CLAIMS(a, 1)
#if N > 2
  CLAIMS(a, 2)
#endif
  :: d_step {
       step[a] == 1 -> /* the fence: nothing of the node lands any more */
       n = slot[a];
#ifndef REPLAY_BEFORE_FENCE
       refused[n] = true;
       forget(n);
#endif
       fenced[n] = true;
       step[a] = 2;
       n = 0
     }
  :: d_step { /* replay, block by block */
       step[a] >= 2 && step[a] <= 4 && replays[a] == 0 ->
       n = slot[a];
       if
       :: image[OF(n, step[a] - 2)] != 0 && STANDS(n, step[a] - 2) -> replays[a] = image[OF(n, step[a] - 2)]
       :: else -> step[a] = step[a] + 1
       fi;
       n = 0
     }
  :: d_step {
       step[a] >= 2 && step[a] <= 4 && replays[a] != 0 ->
       vol[step[a] - 2] = replays[a] - 1;
       replays[a] = 0;
       step[a] = step[a] + 1
     }
#ifdef NO_FLUSH_AFTER_REPLAY
  :: d_step { step[a] == 5 -> step[a] = 6 }
#else
  :: d_step { step[a] == 5 -> flush(); step[a] = 6 }
#endif
  :: d_step { step[a] == 6 -> empty_log(slot[a]); step[a] = 7 }
  :: d_step {
       step[a] == 7 ->
       n = slot[a];
       if
       :: record[n] == RECOVERING && recoverer[n] == a -> record[n] = CLEAN; fenced[n] = false; recoverer[n] = NOBODY
       :: else /* another has claimed it */
       fi;
       end_recoverer(a);
       n = 0
     }
  od
}

proctype power() {
end:
  do
  :: d_step {
       cuts > 0 ->
       cuts--;
       vol[0] = dur[0]; vol[1] = dur[1]; vol[2] = dur[2];
       s = 0;
       do
       :: s < N ->
          forget(s);
          refused[s] = true;
          if
          :: record[s] != CLEAN -> record[s] = RECOVERING; recoverer[s] = NOBODY
          :: else
          fi;
          s++
       :: else -> break
       od;
       end_recoverer(0);
       end_recoverer(1)
     }
  od
}

proctype everything_is_recovered() {
  byte i;
end:
  atomic {
    timeout ->
    do
    :: i < N -> assert(record[i] == ACTIVE || step[0] || step[1]); i++
    :: else -> break
    od;
    assert(!step[0] && !step[1])
  }
}

init {
  byte i;
  atomic {
    do
    :: i < N -> run node(i); i++
    :: else -> break
    od;
    run agent(0);
    run agent(1);
    run power();
    run everything_is_recovered()
  }
}
