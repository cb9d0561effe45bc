package server

import (
	"net/http"
	"sync"
)

// crowd counts the requests that are being answered; http.Server does not await
// those whose connection was taken over.
type crowd struct {
	mu     sync.Mutex
	left   bool // nobody is let in any more
	inside sync.WaitGroup
}

// serve has h answer, unless the server has ended.
func (c *crowd) serve(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.enter() {
			panic(http.ErrAbortHandler) // its connection is closed already
		}
		defer c.inside.Done()
		h.ServeHTTP(w, r)
	})
}

func (c *crowd) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.left {
		c.inside.Add(1)
	}
	return !c.left
}

// wait lets nobody in any more, and returns when all have gone.
func (c *crowd) wait() {
	c.mu.Lock()
	c.left = true
	c.mu.Unlock()
	c.inside.Wait()
}
