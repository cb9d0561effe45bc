package pod

import "time"

// Backoff is an exponential delay that forgets after a long quiet time.
type Backoff struct {
	// Delay is what the next restart waits for, 0 for none.
	Delay time.Duration `json:"delay,omitempty"`
	// At is when the last try was let through.
	At time.Time `json:"at,omitzero"`
}

// Back-off begins at 10 s, doubles, and ends at 300 s unless configured lower
// (behaviour rows 1.4-10, 1.10-5).
const (
	backoffInitial = 10 * time.Second
	backoffMax     = 300 * time.Second
	backoffQuiet   = 10 * time.Minute
)

// Due is when the next try may begin after one that ended at end. A maximum
// above zero caps the delay.
func (b Backoff) Due(end time.Time, maximum time.Duration) time.Time {
	if b.Delay == 0 || end.Sub(b.At) > backoffQuiet {
		return end
	}
	if maximum > 0 {
		return end.Add(min(b.Delay, maximum))
	}
	return end.Add(b.Delay)
}

// Next is the back-off after a try was let through at now; end is when the
// try before it ended.
func (b Backoff) Next(end, now time.Time) Backoff {
	if b.Delay == 0 || end.Sub(b.At) > backoffQuiet {
		return Backoff{Delay: backoffInitial, At: now}
	}
	return Backoff{Delay: min(2*b.Delay, backoffMax), At: now}
}
