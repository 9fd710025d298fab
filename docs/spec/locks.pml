/*
 * One lock block with L entries and N nodes: grant, handover, weakening, upgrade, taking over from the dead, with
 * COMPARE AND WRITE whose reply is lost and which may run late. Design §4 rule 2, §6.1, §6.2; the code is
 * disklock/lock_entry.cpp (plans), lock_round.cpp (ran, judge), lock_give_up.cpp, lock_worker.cpp and caw.cpp (settle).
 *
 * Checked: nobody uses an entry EX while another uses it or holds it otherwise (§10 invariant 1), nobody reads what
 * another has not put in place or has changed since (3, 5), a node never finds a lock of its own gone, and everybody
 * who waits is served in the end (deadlock). What nodes do out of themselves, operations and faults, is counted, and
 * whoever waits does so for a change: so there must be no cycle at all in which every process goes on (livelock).
 *
 * How it stands for the code:
 * - An image is whatever stood on the disk while fresh[n]; sequence numbers never repeat, so a COMPARE AND WRITE runs if
 *   and only if its base is fresh still. Generations never repeat either: what the code compares is whether the entry
 *   has the generation that a node remembers (same) or has just written (wrote).
 * - mail is what a node's mailbox says; it is posted some time after the node has begun to want, or has ceased to.
 * - A crashed node's COMPARE AND WRITE may run until the node is fenced. Fence, replay and CLEAN are one step here;
 *   journal.pml takes them apart.
 *
 * Left out: mode D, openers, pressing, asking ahead, `expected` wants; tests/unit/disklock/lock_entry_test.cpp goes
 * through those exhaustively, entry by entry.
 *
 * Broken variants, each of which must be refuted: see tests/spec/spec_test.py.
 */
#ifndef N
#define N 3
#endif
#ifndef L
#define L 2
#endif
#ifndef OPS
#define OPS 1 /* operations of each node; one may take an entry and then the next */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LOSSES
#define LOSSES 1 /* replies lost */
#endif
#ifndef READERS
#define READERS 0 /* so many nodes never want EX */
#endif
#ifndef QUITS
#define QUITS 0 /* operations that stop waiting */
#endif

/* Modes; EX is the strongest. */
#define NL 0
#define SH 1
#define EX 2

/* What a worker does. */
#define IDLE 0
#define TAKES 1  /* has read that entries are handed to it */
#define DOUBTS 2 /* waits for somebody who may have ended */
#define SENT 3   /* COMPARE AND WRITE is on its way */
#define UNSURE 4 /* its outcome is not known */

/* Slot records. */
#define ACTIVE 0
#define RECOVERING 1
#define CLEAN 2

/* Give-up. */
#define NO 0
#define ASKED 1
#define READY 2

/* Planned changes. */
#define NOTHING 0
#define GRANT 1
#define WRITE 2
#define RELEASE 3

#define BIT(s) (1 << (s))
#define AT(n, l) ((n)*L + (l))

typedef Entry {
  byte mode;
  byte wt;  /* SH: what the waiter waits for */
  byte own; /* EX: the holder; SH with a waiter: the waiter */
  byte inc;
  byte shr; /* SH: sharers; EX: known to wait */
};

Entry disk[L];
byte last = N; /* who wrote the image on the disk */
byte record[N];
byte incarnation[N];

bool up[N];
byte worker[N];
bool fresh[N]; /* the image that the node has is that on the disk */
bool ran[N];   /* SENT, UNSURE: it has run */
bool look[N];  /* something has changed */
byte held[N * L];
byte want[N * L];
byte user[N * L];
byte mail[N * L];
byte giveup[N * L];
byte keep[N * L];
bool handover[N * L];
bool myturn[N * L];
bool same[N * L];  /* the entry's generation is that of the hold */
bool wrote[N * L]; /* ... is that of the image sent, or read as handed over */
bool raises[N * L];
byte kind[N * L];
byte left[N * L]; /* RELEASE: what is held afterwards; TAKES: what is handed over */
Entry after[N * L];

byte ops[N];
byte crashes = CRASHES;
byte losses = LOSSES;
byte quits = QUITS;

/* What no node knows. */
byte dirty[L];     /* who has changed what the entry covers, and not put it in place; slot + 1 */
bool stale[N * L]; /* what the node has cached was changed by another since */

#ifdef RECORDS_FIRST
byte old_live[N * N]; /* broken: records read before the image; incarnation + 1, 0: none */
#endif

/* Scratch for d_steps. */
hidden byte l, m, turn, slots, known, others, waiting, wanting, strongest, sharers, vacant;
hidden byte gone, written, any, blocked, lives;
hidden byte e_mode, e_wt, e_own, e_inc, e_shr;
hidden byte e_raise;

#define IN_USE(s) (record[s] != CLEAN)
#define ENDED(s, i) (!(IN_USE(s) && incarnation[s] == (i)))
#define NEEDS(n, l) (giveup[AT(n, l)] == NO && want[AT(n, l)] > held[AT(n, l)])
#define COMPATIBLE(a, b) ((a) == NL || (b) == NL || ((a) == SH && (b) == SH))
#define HOLDS(n, l) \
  (disk[l].mode == held[AT(n, l)] && same[AT(n, l)] && \
   ((held[AT(n, l)] == EX && disk[l].own == n && disk[l].inc == incarnation[n]) || \
    (held[AT(n, l)] == SH && (disk[l].shr & BIT(n)))))

/* --- one entry (lock_entry.cpp) ----------------------------------------------------------------------------------- */

inline make_free() {
  e_mode = NL; e_wt = NL; e_own = 0; e_inc = 0; e_shr = 0
}
/* `waiting`: who is known to wait. */
inline make_exclusive(s, i) {
  e_own = s; e_inc = i; e_mode = EX; e_wt = NL; e_shr = waiting & ~BIT(e_own); e_raise = true
}
inline make_shared() {
  e_mode = SH; e_wt = NL; e_own = 0; e_inc = 0; e_shr = sharers
}
inline leave_shared(s) {
  e_shr = e_shr & ~BIT(s);
  if
  :: e_shr != 0
  :: e_shr == 0 && e_wt == NL -> make_free()
  :: e_shr == 0 && e_wt != NL -> make_exclusive(e_own, e_inc)
  fi
}
/* The first slot after s in the circle with its bit in `slots`, which is not 0. */
inline next_slot(s) {
  turn = (s + 1) % N;
  do
  :: slots & BIT(turn) -> break
  :: else -> turn = (turn + 1) % N
  od;
  skip
}
/* `known`: other slots whose mail wants it. */
inline hear(n, l) {
  known = 0;
  strongest = NL;
  m = 0;
  do
  :: m < N ->
     if
     :: m != n && mail[AT(m, l)] != NL ->
        known = known | BIT(m);
        if
        :: !COMPATIBLE(held[AT(n, l)], mail[AT(m, l)]) && mail[AT(m, l)] > strongest -> strongest = mail[AT(m, l)]
        :: else
        fi
     :: else
     fi;
     m++
  :: else -> break
  od;
  skip
}
/* `wanting`: of those in `known`, who want SH. */
inline hear_sharers(l) {
  wanting = 0;
  m = 0;
  do
  :: m < N ->
     if
     :: (known & BIT(m)) && mail[AT(m, l)] == SH -> wanting = wanting | BIT(m)
     :: else
     fi;
     m++
  :: else -> break
  od;
  skip
}
/* Shared by `sharers`; the next of those who want it EX is the waiter. */
inline share_out(n, l) {
  make_shared();
  slots = known & ~wanting;
  if
  :: slots != 0 -> next_slot(n); e_own = turn; e_inc = incarnation[turn]; e_wt = EX
  :: slots == 0 && want[AT(n, l)] == EX -> e_own = n; e_inc = incarnation[n]; e_wt = EX
  :: else
  fi
}

/* Has slot s no node, or node (s, i) ended, as the records say that were read? */
#ifdef RECORDS_FIRST
#define SEEN_VACANT(n, s) (old_live[n * N + (s)] == 0)
#define SEEN_ENDED(n, s, i) (old_live[n * N + (s)] != (i) + 1)
#else
#define SEEN_VACANT(n, s) (lives && !IN_USE(s))
#define SEEN_ENDED(n, s, i) (lives && ENDED(s, i))
#endif

inline take_out_ended(n, l) {
  vacant = 0;
  m = 0;
  do
  :: m < N ->
     if
     :: m != n && SEEN_VACANT(n, m) -> vacant = vacant | BIT(m)
     :: else
     fi;
     m++
  :: else -> break
  od;
  waiting = 0;
  gone = (e_own == n && e_inc != incarnation[n]) || SEEN_ENDED(n, e_own, e_inc);
#ifdef TAKES_FROM_RECOVERING
  gone = gone || record[e_own] == RECOVERING;
#endif
  if
  :: e_mode == EX && gone -> waiting = e_shr & ~vacant; make_free()
  :: e_mode == SH ->
     e_shr = e_shr & ~vacant;
     if
     :: e_wt != NL && gone -> e_wt = NL; e_own = 0; e_inc = 0
     :: else
     fi
  :: else
  fi
}

inline plan_acquire(n, l) {
  take_out_ended(n, l);
  others = e_shr & ~BIT(n);
  if
  :: e_mode == EX -> blocked = true
  :: e_mode == NL ->
     if
     :: want[AT(n, l)] == EX -> make_exclusive(n, incarnation[n])
     :: else -> sharers = BIT(n); make_shared()
     fi;
     kind[AT(n, l)] = GRANT
  :: e_mode == SH && e_wt != NL && !(e_own == n && e_inc == incarnation[n]) ->
     blocked = true;
     if
     :: held[AT(n, l)] == NL && (e_shr & BIT(n)) -> waiting = BIT(n); leave_shared(n); kind[AT(n, l)] = WRITE
     :: else
     fi
  :: else ->
     if
     :: want[AT(n, l)] == SH ->
        e_wt = NL; e_own = 0; e_inc = 0; e_shr = e_shr | BIT(n);
        kind[AT(n, l)] = GRANT
#ifdef UPGRADE_BESIDE_SHARERS
     :: want[AT(n, l)] == EX ->
#else
     :: want[AT(n, l)] == EX && others == 0 ->
#endif
        waiting = 0;
        make_exclusive(n, incarnation[n]);
        kind[AT(n, l)] = GRANT
     :: want[AT(n, l)] == EX && others != 0 ->
        blocked = true;
        written = e_wt == EX && (held[AT(n, l)] != NL || !(e_shr & BIT(n)));
        if
        :: held[AT(n, l)] == NL -> e_shr = others
        :: else
        fi;
        e_own = n; e_inc = incarnation[n]; e_wt = EX;
        if
#ifdef REGISTERS_AGAIN
        :: true -> kind[AT(n, l)] = WRITE
#else
        :: !written -> kind[AT(n, l)] = WRITE
        :: else
#endif
        fi
     fi
  fi
}

inline plan_release(n, l) {
  hear(n, l);
  if
  :: !HOLDS(n, l) -> assert(false) /* a lock of mine is gone */
  :: HOLDS(n, l) && known == 0 && !(e_mode == SH && e_wt != NL && e_own != n) -> keep_it(n, l)
  :: else ->
     kind[AT(n, l)] = RELEASE;
     left[AT(n, l)] = NL;
     waiting = known | (want[AT(n, l)] != NL -> BIT(n) : 0);
     if
     :: held[AT(n, l)] == EX && keep[AT(n, l)] == SH ->
        hear_sharers(l);
        sharers = wanting | BIT(n);
        share_out(n, l);
        left[AT(n, l)] = SH
     :: held[AT(n, l)] == EX && keep[AT(n, l)] == NL ->
        slots = known;
        next_slot(n);
        if
        :: mail[AT(turn, l)] == EX -> make_exclusive(turn, incarnation[turn])
        :: else ->
           hear_sharers(l);
           sharers = wanting;
           if
           :: want[AT(n, l)] == SH -> sharers = sharers | BIT(n); left[AT(n, l)] = SH
           :: else
           fi;
           share_out(n, l)
        fi
     :: held[AT(n, l)] == SH ->
        leave_shared(n);
        if
        :: e_mode == EX && e_own == n && e_inc == incarnation[n] -> left[AT(n, l)] = EX
        :: else
        fi
     fi
  fi
}

inline plan_disown(n, l) {
  hear(n, l);
  if
  :: known != 0 ->
     if
     :: e_mode == SH && e_wt != NL && e_own == n -> e_wt = NL; e_own = 0; e_inc = 0; kind[AT(n, l)] = WRITE
     :: else
     fi;
     if
     :: e_mode == EX && e_own == n ->
        make_free();
        slots = known;
        next_slot(n);
        waiting = known;
        sharers = BIT(turn);
        if
        :: mail[AT(turn, l)] == EX -> make_exclusive(turn, incarnation[turn])
        :: else -> make_shared()
        fi;
        kind[AT(n, l)] = WRITE
     :: e_mode == SH && (e_shr & BIT(n)) -> waiting = known; leave_shared(n); kind[AT(n, l)] = WRITE
     :: else
     fi
  :: else
  fi
}

/* --- a node's own state --------------------------------------------------------------------------------------------- */

inline enter(n, l) {
  user[AT(n, l)] = want[AT(n, l)];
  want[AT(n, l)] = NL;
  assert(!stale[AT(n, l)]);
  m = 0;
  do
  :: m < N ->
     if
     :: m != n && up[m] -> assert(COMPATIBLE(user[AT(n, l)], user[AT(m, l)]))
     :: else
     fi;
     if
     :: m != n && user[AT(n, l)] == EX && held[AT(m, l)] != NL -> stale[AT(m, l)] = true
     :: else
     fi;
     m++
  :: else -> break
  od;
  if
  :: user[AT(n, l)] == EX -> dirty[l] = n + 1
  :: else
  fi
}
inline admit(n, l) {
  if
  :: giveup[AT(n, l)] == NO && want[AT(n, l)] != NL && want[AT(n, l)] <= held[AT(n, l)] -> enter(n, l)
  :: else
  fi
}
inline keep_it(n, l) {
  giveup[AT(n, l)] = NO;
  look[n] = true;
  admit(n, l)
}
/* Of what counts as given up nobody minds another's hold. */
inline granted(n, l, to) {
  if
  :: held[AT(n, l)] == NL -> stale[AT(n, l)] = false; assert(dirty[l] == 0 || dirty[l] == n + 1)
  :: else
  fi;
  held[AT(n, l)] = to;
  m = 0;
  do
  :: m < N ->
     if
     :: m != n && up[m] && giveup[AT(m, l)] != READY -> assert(COMPATIBLE(held[AT(n, l)], held[AT(m, l)]))
     :: else
     fi;
     m++
  :: else -> break
  od;
  same[AT(n, l)] = wrote[AT(n, l)];
  handover[AT(n, l)] = false;
  myturn[AT(n, l)] = false;
  admit(n, l)
}
inline let_go(n, l, to) {
  held[AT(n, l)] = to;
  giveup[AT(n, l)] = NO;
  myturn[AT(n, l)] = false;
  handover[AT(n, l)] = (to == NL);
  if
  :: held[AT(n, l)] == NL -> stale[AT(n, l)] = false; same[AT(n, l)] = false
  :: else
  fi;
  admit(n, l)
}

/* --- the worker (lock_worker.cpp, lock_round.cpp) ------------------------------------------------------------------- */

inline forget_plan(n) {
  l = 0;
  do
  :: l < L ->
     kind[AT(n, l)] = NOTHING; left[AT(n, l)] = NL; raises[AT(n, l)] = false; wrote[AT(n, l)] = false;
     after[AT(n, l)].mode = 0; after[AT(n, l)].wt = 0; after[AT(n, l)].own = 0; after[AT(n, l)].inc = 0;
     after[AT(n, l)].shr = 0;
     l++
  :: else -> break
  od;
  ran[n] = false
}

#define HANDED(n, l) \
  ((e_mode == EX && e_own == n && e_inc == incarnation[n]) || \
   (handover[AT(n, l)] && held[AT(n, l)] == NL && e_mode == SH && want[AT(n, l)] == SH && (e_shr & BIT(n))))

inline plan_entry(n, l) {
  e_mode = disk[l].mode; e_wt = disk[l].wt; e_own = disk[l].own; e_inc = disk[l].inc; e_shr = disk[l].shr;
  e_raise = false;
  if
  :: giveup[AT(n, l)] == READY -> plan_release(n, l)
  :: NEEDS(n, l) ->
     if
#ifdef BIT_IS_ENOUGH
     :: held[AT(n, l)] == NL -> handover[AT(n, l)] = true
#else
     :: held[AT(n, l)] == NL && !(e_mode == SH && (e_shr & BIT(n))) -> handover[AT(n, l)] = true
#endif
     :: else
     fi;
     if
     :: HANDED(n, l) ->
        left[AT(n, l)] = e_mode; wrote[AT(n, l)] = true; any = true
     :: else ->
        myturn[AT(n, l)] = e_mode == SH && e_wt != NL && e_own == n && e_inc == incarnation[n];
        plan_acquire(n, l)
     fi
  :: giveup[AT(n, l)] != READY && !NEEDS(n, l) && myturn[AT(n, l)] && held[AT(n, l)] != NL && giveup[AT(n, l)] == NO ->
     if
     :: e_mode == SH && e_wt != NL && e_own == n -> e_wt = NL; e_own = 0; e_inc = 0; kind[AT(n, l)] = WRITE
     :: else -> myturn[AT(n, l)] = false
     fi
  :: giveup[AT(n, l)] != READY && !NEEDS(n, l) && held[AT(n, l)] == NL && want[AT(n, l)] == NL ->
#ifdef NO_DISOWN
     skip
#else
     plan_disown(n, l)
#endif
  :: else
  fi;
  if
  :: kind[AT(n, l)] != NOTHING ->
     after[AT(n, l)].mode = e_mode; after[AT(n, l)].wt = e_wt; after[AT(n, l)].own = e_own;
     after[AT(n, l)].inc = e_inc; after[AT(n, l)].shr = e_shr;
     raises[AT(n, l)] = e_raise
  :: else
  fi
}
/* Of the image that the node has, which is fresh. */
inline plan(n, with_lives) {
  lives = with_lives;
  any = false;
  blocked = false;
  forget_plan(n);
  written = false;
  l = 0;
  do
  :: l < L -> plan_entry(n, l); l++
  :: else -> break
  od;
  written = false;
  l = 0;
  do
  :: l < L -> written = written || kind[AT(n, l)] != NOTHING; l++
  :: else -> break
  od;
  if
  :: any -> worker[n] = TAKES
  :: !any && written -> worker[n] = SENT
  :: !any && !written && blocked -> worker[n] = DOUBTS
  :: else -> worker[n] = IDLE
  fi
}

#if L == 1
#define ANY(n, X) (X(n, 0))
#else
#define ANY(n, X) (X(n, 0) || X(n, 1))
#endif
/* To whom news matter: of the block, of mail. */
#define NAMED(n, l) \
  ((disk[l].shr & BIT(n)) || ((disk[l].mode == EX || disk[l].wt != NL) && disk[l].own == n))
#define MINDS_MAIL(n, l) \
  (held[AT(n, l)] != NL || NAMED(n, l))
#define MINDS_CHANGE(n, l) \
  (NEEDS(n, l) || giveup[AT(n, l)] == READY || myturn[AT(n, l)] || (held[AT(n, l)] == NL && NAMED(n, l)))
inline wake(mailed) {
  m = 0;
  do
  :: m < N ->
     if
     :: up[m] && ((mailed && ANY(m, MINDS_MAIL)) || (!mailed && ANY(m, MINDS_CHANGE))) -> look[m] = true
     :: else
     fi;
     m++
  :: else -> break
  od;
  skip
}

/* It runs if nobody has changed the block since. */
inline runs(n) {
  ran[n] = true;
  last = n;
  m = 0;
  do
  :: m < N -> fresh[m] = false; m++
  :: else -> break
  od;
  l = 0;
  do
  :: l < L ->
     if
     :: kind[AT(n, l)] != NOTHING ->
        disk[l].mode = after[AT(n, l)].mode; disk[l].wt = after[AT(n, l)].wt; disk[l].own = after[AT(n, l)].own;
        disk[l].inc = after[AT(n, l)].inc; disk[l].shr = after[AT(n, l)].shr;
        m = 0;
        do
        :: m < N ->
           if
           :: raises[AT(n, l)] -> same[AT(m, l)] = false; wrote[AT(m, l)] = false
           :: else
           fi;
           m++
        :: else -> break
        od;
        wrote[AT(n, l)] = true
     :: else
     fi;
     l++
  :: else -> break
  od;
  wake(false)
}
/* The image on the disk is the one sent. */
inline see_it_ran(n) {
  worker[n] = IDLE;
  look[n] = true;
  l = 0;
  do
  :: l < L ->
     if
     :: kind[AT(n, l)] == GRANT -> granted(n, l, after[AT(n, l)].mode)
     :: kind[AT(n, l)] == RELEASE && left[AT(n, l)] == EX -> giveup[AT(n, l)] = NO; granted(n, l, EX)
     :: kind[AT(n, l)] == RELEASE && left[AT(n, l)] != EX -> let_go(n, l, left[AT(n, l)])
     :: kind[AT(n, l)] == WRITE -> myturn[AT(n, l)] = after[AT(n, l)].wt != NL && after[AT(n, l)].own == n
     :: else
     fi;
     l++
  :: else -> break
  od;
  forget_plan(n)
}
/* Others have changed the block, and the one sent may have run before. */
inline judge(n) {
  worker[n] = IDLE;
  look[n] = true;
  l = 0;
  do
  :: l < L ->
     if
     :: kind[AT(n, l)] == GRANT ->
#ifdef BELIEVES_ITS_GRANT
        granted(n, l, after[AT(n, l)].mode)
#else
        if
        :: disk[l].mode == EX && disk[l].own == n && disk[l].inc == incarnation[n] && wrote[AT(n, l)] ->
           granted(n, l, EX)
        :: else
        fi
#endif
     :: kind[AT(n, l)] == RELEASE ->
#ifdef NO_GENERATION
        same[AT(n, l)] = true;
#endif
        if
        :: HOLDS(n, l)
        :: else ->
           if
           :: left[AT(n, l)] == SH && disk[l].mode == SH && wrote[AT(n, l)] && (disk[l].shr & BIT(n)) ->
              same[AT(n, l)] = true;
              let_go(n, l, SH)
           :: else ->
              assert(!(keep[AT(n, l)] == SH && left[AT(n, l)] == SH)); /* a lock of mine is gone */
              let_go(n, l, NL)
           fi
        fi
     :: else
     fi;
     l++
  :: else -> break
  od;
  forget_plan(n)
}

#define BUSY(n, l) (want[AT(n, l)] != NL || user[AT(n, l)] != NL)
#define WANTS(n, l) (want[AT(n, l)] != NL)
#define USES(n, l) (user[AT(n, l)] != NL)
/* It is posted once the wait has begun. */
#define MAIL_IS_OLD(n, l) \
  ((mail[AT(n, l)] != NL || worker[n] == DOUBTS) && \
   mail[AT(n, l)] != (want[AT(n, l)] > held[AT(n, l)] -> want[AT(n, l)] : NL))
#define CHANGES_MAIL(n, l) \
  mail[AT(n, l)] = (want[AT(n, l)] > held[AT(n, l)] -> want[AT(n, l)] : NL)
/* Something in the way of what is wanted has ended. */
#define DEAD_IN_WAY(n, l) \
  (NEEDS(n, l) && \
   (((disk[l].mode == EX || disk[l].wt != NL) && ENDED(disk[l].own, disk[l].inc)) || \
    (disk[l].mode == SH && VACANT_SHARER(n, l))))
#define VACANT_AT(n, l, s) (s < N && s != n && (disk[l].shr & BIT(s)) && !IN_USE(s))
#if N == 2
#define VACANT_SHARER(n, l) (VACANT_AT(n, l, 0) || VACANT_AT(n, l, 1))
#else
#define VACANT_SHARER(n, l) (VACANT_AT(n, l, 0) || VACANT_AT(n, l, 1) || VACANT_AT(n, l, 2))
#endif

/* Mail has changed, or the lock: is it to be given up (consider())? */
inline consider(n, l) {
  hear(n, l);
  if
  :: giveup[AT(n, l)] == NO && held[AT(n, l)] != NL && strongest != NL && !(myturn[AT(n, l)] && NEEDS(n, l)) ->
     giveup[AT(n, l)] = ASKED;
     keep[AT(n, l)] = (held[AT(n, l)] == EX && strongest == SH -> SH : NL)
  :: else
  fi
}

/* No users are left: what the lock covers is committed, and in place. */
inline settle(n, l) {
#ifndef HANDOVER_BEFORE_IN_PLACE
  if
  :: dirty[l] == n + 1 -> dirty[l] = 0
  :: else
  fi;
#endif
  giveup[AT(n, l)] = READY;
  look[n] = true
}

inline start_anew(n) {
  up[n] = true;
  worker[n] = IDLE;
  fresh[n] = false;
  look[n] = true;
  l = 0;
  do
  :: l < L ->
     held[AT(n, l)] = NL; want[AT(n, l)] = NL; user[AT(n, l)] = NL; mail[AT(n, l)] = NL; giveup[AT(n, l)] = NO;
     keep[AT(n, l)] = NL; handover[AT(n, l)] = false; myturn[AT(n, l)] = false; same[AT(n, l)] = false;
     stale[AT(n, l)] = false;
     l++
  :: else -> break
  od;
  forget_plan(n)
}

/* Replay puts in place what the dead node had committed, where the entry still says EX by it (journal.pml). */
inline replay(n) {
  l = 0;
  do
  :: l < L ->
     if
     :: dirty[l] == n + 1 && disk[l].mode == EX && disk[l].own == n && disk[l].inc == incarnation[n] -> dirty[l] = 0
     :: else
     fi;
     l++
  :: else -> break
  od;
  skip
}

inline choose_mode(n, l) {
  if
  :: want[AT(n, l)] = SH
  :: n + READERS < N -> want[AT(n, l)] = EX
  fi
}

proctype node(byte n) {
  byte at;
end:
  do
  /* users */
  :: atomic {
       up[n] && ops[n] > 0 && !ANY(n, BUSY) ->
       ops[n]--;
       if
       :: at = 0
#if L > 1
       :: at = 1
#endif
       fi;
       choose_mode(n, at);
       d_step { admit(n, at); look[n] = true; at = 0 }
     }
#if L > 1
  :: atomic { /* the next entry, while using the first */
       up[n] && user[AT(n, 0)] != NL && !BUSY(n, 1) ->
       choose_mode(n, 1);
       d_step { admit(n, 1); look[n] = true }
     }
#endif
  :: d_step { /* done with all */
       up[n] && ANY(n, USES) && !ANY(n, WANTS) ->
       l = 0;
       do
       :: l < L -> user[AT(n, l)] = NL; l++
       :: else -> break
       od;
       skip
     }
#if QUITS > 0
  :: atomic {
       up[n] && quits > 0 && ANY(n, BUSY) && !ANY(n, USES) -> /* waits, and has nothing */
       d_step {
         quits--;
         look[n] = true;
         l = 0;
         do
         :: l < L -> want[AT(n, l)] = NL; l++
         :: else -> break
         od;
         skip
       }
     }
#endif
  /* giving up, entry by entry */
  :: d_step {
       up[n] && look[n] && (worker[n] == IDLE || worker[n] == DOUBTS) ->
       look[n] = false;
       l = 0;
       do
       :: l < L -> consider(n, l); l++
       :: else -> break
       od;
       fresh[n] = true;
       plan(n, false)
     }
  :: d_step {
       up[n] && look[n] && worker[n] != IDLE && worker[n] != DOUBTS ->
       look[n] = false;
       l = 0;
       do
       :: l < L -> consider(n, l); l++
       :: else -> break
       od;
       skip
     }
  :: d_step { up[n] && giveup[AT(n, 0)] == ASKED && user[AT(n, 0)] == NL -> settle(n, 0) }
#if L > 1
  :: d_step { up[n] && giveup[AT(n, 1)] == ASKED && user[AT(n, 1)] == NL -> settle(n, 1) }
#endif
  /* the worker */
  :: d_step { up[n] && worker[n] == DOUBTS && fresh[n] && ANY(n, DEAD_IN_WAY) -> plan(n, true) }
  :: d_step {
       up[n] && worker[n] == TAKES ->
       l = 0;
       do
       :: l < L ->
          if
          :: left[AT(n, l)] != NL && kind[AT(n, l)] == NOTHING -> granted(n, l, left[AT(n, l)])
          :: else
          fi;
          l++
       :: else -> break
       od;
       forget_plan(n);
       worker[n] = IDLE;
       look[n] = true
     }
  :: d_step { (worker[n] == SENT || worker[n] == UNSURE) && !ran[n] && fresh[n] -> runs(n) }
  :: d_step { up[n] && worker[n] == SENT && ran[n] -> see_it_ran(n) }
  :: d_step { up[n] && worker[n] == SENT && !ran[n] && !fresh[n] -> worker[n] = UNSURE } /* miscompare */
  :: d_step { up[n] && worker[n] == SENT && losses > 0 -> losses--; worker[n] = UNSURE }
  :: d_step {
       up[n] && worker[n] == UNSURE && (ran[n] || !fresh[n]) -> /* while the old image stands it is sent again */
#ifdef MISCOMPARE_IS_FAILURE
       fresh[n] = false; forget_plan(n); worker[n] = IDLE; look[n] = true
#else
       if
       :: ran[n] && last == n -> see_it_ran(n)
       :: else -> fresh[n] = true; judge(n)
       fi
#endif
     }
  /* death and recovery */
#if CRASHES > 0
  :: d_step { up[n] && crashes > 0 -> crashes--; up[n] = false }
  :: d_step { !up[n] && record[n] == ACTIVE -> record[n] = RECOVERING; wake(false) }
  :: d_step {
       !up[n] && record[n] == RECOVERING ->
       worker[n] = IDLE;
       forget_plan(n);
       replay(n);
       record[n] = CLEAN;
       wake(false)
     }
  :: d_step { !up[n] && record[n] == CLEAN -> record[n] = ACTIVE; incarnation[n]++; start_anew(n); wake(false) }
#endif
#ifdef RECORDS_FIRST
  :: d_step {
       up[n] ->
       m = 0;
       do
       :: m < N -> old_live[n * N + m] = (IN_USE(m) -> incarnation[m] + 1 : 0); m++
       :: else -> break
       od;
       skip
     }
#endif
  od;
  skip
}

/* A process of its own, that is not for ever put off while others hand an entry to and fro: weak fairness. */
proctype mailer(byte n) {
end:
  do
  :: d_step {
       up[n] && ANY(n, MAIL_IS_OLD) ->
       l = 0;
       do
       :: l < L ->
          if
          :: MAIL_IS_OLD(n, l) -> CHANGES_MAIL(n, l)
          :: else
          fi;
          l++
       :: else -> break
       od;
       wake(true)
     }
  od
}

proctype everybody_is_served() {
  byte s;
end:
  atomic {
    timeout ->
    s = 0;
    do
    :: s < N -> assert(up[s] && !ANY(s, BUSY)); s++
    :: else -> break
    od;
    skip
  }
}

init {
  byte s;
  atomic {
    do
    :: s < N ->
       up[s] = true;
       ops[s] = OPS;
       run node(s);
       run mailer(s);
       s++
    :: else -> break
    od;
    run everybody_is_served()
  }
}
