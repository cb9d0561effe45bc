package syncloop

import (
	"sync"
	"time"
)

// mailbox hands events to one reader. Putting never blocks, so that whoever
// learns something can tell it at once, whatever the reader is at.
type mailbox[E any] struct {
	mu    sync.Mutex
	mail  []E
	since time.Time     // of the oldest mail
	ready chan struct{} // holds a token while there may be mail
}

func newMailbox[E any]() *mailbox[E] { return &mailbox[E]{ready: make(chan struct{}, 1)} }

func (m *mailbox[E]) put(e E) {
	m.mu.Lock()
	if len(m.mail) == 0 {
		m.since = time.Now()
	}
	m.mail = append(m.mail, e)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take is all mail that came since the last call, in order.
func (m *mailbox[E]) take() []E {
	m.mu.Lock()
	defer m.mu.Unlock()
	mail := m.mail
	m.mail = nil
	return mail
}

// len is how much mail there is.
func (m *mailbox[E]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mail)
}

// unread says since when there is mail, if there is some.
func (m *mailbox[E]) unread() (since time.Time, some bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since, len(m.mail) > 0
}
