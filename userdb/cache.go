package userdb

import (
	"context"
	"sync"
	"time"
)

// Cache remembers the users that a slow database found. It does not remember anything else: an account that was created
// a moment ago must not bounce, and a database that is up again must be asked. The zero value of all but Database works;
// fields must not be changed after the first Lookup.
type Cache struct {
	Database Database
	TTL      time.Duration    // how long; 0: five seconds
	Size     int              // users remembered; 0: 10,000
	Clock    func() time.Time // nil: time.Now

	mu    sync.RWMutex
	users map[userKey]cached
}

type cached struct {
	user *User
	at   time.Time
}

// Lookup answers from memory if it can.
func (c *Cache) Lookup(ctx context.Context, a Address) (*User, error) {
	now := time.Now
	if c.Clock != nil {
		now = c.Clock
	}
	key, start := userKey{a.Local, a.Domain}, now()
	c.mu.RLock()
	hit, ok := c.users[key]
	c.mu.RUnlock()
	if ok && c.fresh(hit, start) {
		return hit.user, nil
	}
	u, err := c.Database.Lookup(ctx, a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || u == nil {
		delete(c.users, key)
		return u, err
	}
	size := orDefault(c.Size, 10_000)
	if len(c.users) >= size {
		for k, v := range c.users {
			if !c.fresh(v, start) {
				delete(c.users, k)
			}
		}
	}
	for k := range c.users { // still full: anyone goes
		if len(c.users) < size {
			break
		}
		delete(c.users, k)
	}
	if c.users == nil {
		c.users = map[userKey]cached{}
	}
	c.users[key] = cached{u, start} // from before the question: an answer is as old as that
	return u, nil
}

func (c *Cache) fresh(e cached, now time.Time) bool {
	age := now.Sub(e.at)
	return age >= 0 && age < orDefault(c.TTL, 5*time.Second)
}

// Flush forgets everybody, for a reload.
func (c *Cache) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users = nil
}

func (c *Cache) String() string { return c.Database.String() }
