package relay

import "testing"

// A state that was forgotten, and whose last timer runs late, is not taken for the one
// that has come in its place.
func TestPruneLate(t *testing.T) {
	r := &Relay{}
	h := Host{"tcp", "192.0.2.1:24"}
	former := r.use(h)
	r.unuse(former)
	current := r.use(h)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.prune(former); r.hosts[h] != current {
		t.Error("the state in use is gone")
	}
}
