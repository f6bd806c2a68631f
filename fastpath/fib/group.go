package fib

import "sync/atomic"

// regroup gives group g its members and moves as few buckets as that takes.
func (h *nextHops) regroup(g uint32, members []Member) {
	now, home := h.group(g)
	s := newShares(members)
	s.keep(home)
	s.adopt(home, now)
	s.fill(home)
	if !shrunk(h.members[g], members) {
		s.level(home)
	}
	h.members[g] = append([]Member(nil), members...)
	h.settle(g)
}

// shrunk reports whether members are some of before, with the same weights:
// then every flow of those that stayed stays as well.
func shrunk(before, members []Member) bool {
	was := make(map[Member]struct{}, len(before))
	for _, m := range before {
		was[m] = struct{}{}
	}
	for _, m := range members {
		if _, ok := was[m]; !ok {
			return false
		}
	}
	return true
}

// shares counts the buckets of a group's members against what is due to them.
type shares struct {
	members []Member
	index   map[AdjacencyID]int
	count   []int
	total   int // of all weights
}

func newShares(members []Member) *shares {
	s := &shares{
		members: members,
		index:   make(map[AdjacencyID]int, len(members)),
		count:   make([]int, len(members)),
	}
	for i, m := range members {
		s.index[m.Adjacency] = i
		s.total += int(m.Weight)
	}
	return s
}

// due is what member i lacks of its share, in buckets times total weight;
// negative when it has too much.
func (s *shares) due(i int) int {
	return Buckets*int(s.members[i].Weight) - s.count[i]*s.total
}

// keep leaves to each member what it has, up to its share rounded up, and
// frees the rest.
func (s *shares) keep(home []AdjacencyID) {
	for b, a := range home {
		if i, ok := s.index[a]; ok && s.due(i) > 0 {
			s.count[i]++
		} else {
			home[b] = 0
		}
	}
}

// adopt gives free buckets to the members that serve them at present, so that
// the flows which had to leave a member once need not move again.
func (s *shares) adopt(home []AdjacencyID, now []uint32) {
	for b, a := range home {
		if a != 0 {
			continue
		}
		if i, ok := s.index[AdjacencyID(now[b])]; ok && s.due(i) > 0 {
			s.count[i]++
			home[b] = s.members[i].Adjacency
		}
	}
}

// neediest is the member that lacks most of its share.
func (s *shares) neediest() int {
	best := 0
	for i := range s.members {
		if s.due(i) > s.due(best) {
			best = i
		}
	}
	return best
}

// fill gives each free bucket to the member that lacks most.
func (s *shares) fill(home []AdjacencyID) {
	for b, a := range home {
		if a == 0 {
			i := s.neediest()
			s.count[i]++
			home[b] = s.members[i].Adjacency
		}
	}
}

// level takes buckets from members with more than their share until none lacks
// a whole bucket.
func (s *shares) level(home []AdjacencyID) {
	for i := s.neediest(); s.due(i) >= s.total; i = s.neediest() {
		rich := 0
		for j := range s.members {
			if s.due(j) < s.due(rich) {
				rich = j
			}
		}
		for b, a := range home {
			if a == s.members[rich].Adjacency {
				home[b] = s.members[i].Adjacency
				break
			}
		}
		s.count[rich]--
		s.count[i]++
	}
}

// settle puts the buckets of g in force: each at home where that member is up,
// else where it was as long as that is up, else at the member that has least.
func (h *nextHops) settle(g uint32) {
	now, home := h.group(g)
	up := make([]Member, 0, len(h.members[g]))
	for _, m := range h.members[g] {
		if _, down := h.down[m.Adjacency]; !down {
			up = append(up, m)
		}
	}
	s := newShares(up)
	var want [Buckets]AdjacencyID
	for b, a := range home {
		i, ok := s.index[a]
		if !ok {
			i, ok = s.index[AdjacencyID(now[b])]
		}
		if ok {
			want[b] = up[i].Adjacency
			s.count[i]++
		}
	}
	if len(up) > 0 {
		s.fill(want[:])
	}
	for b, a := range want {
		if now[b] != uint32(a) {
			h.moves++
			atomic.StoreUint32(&now[b], uint32(a))
		}
	}
}
