package sqlite

// CacheBytes recounts the size of the cache.
func CacheBytes(s *Store) int {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	n := 0
	for e := s.cache.order.Front(); e != nil; e = e.Next() {
		c, _ := e.Value.(*campaignSets)
		n += campaignBytes
		for _, set := range c.sets {
			n += setBytes
			for _, p := range set.parts {
				n += partSize(p.members)
			}
		}
	}
	return n
}
