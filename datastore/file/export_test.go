package file

// Forget makes a store forget how it came to what it holds.
func Forget(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past, s.told = nil, 0
	s.begin(s.store)
}
