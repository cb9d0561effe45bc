package syncloop

import (
	"slices"
	"sync"
	"testing"
)

// Nothing put in is lost, doubled or out of its sender's order, and a token is
// there whenever mail is.
func TestMailbox(t *testing.T) {
	const senders, letters = 8, 200
	m := newMailbox[[2]int]()
	var work sync.WaitGroup
	for s := range senders {
		work.Go(func() {
			for n := range letters {
				m.put([2]int{s, n})
			}
		})
	}
	got := make([][]int, senders)
	for count := 0; count < senders*letters; {
		<-m.ready
		for _, e := range m.take() {
			got[e[0]] = append(got[e[0]], e[1])
			count++
		}
	}
	work.Wait()
	for s, letters := range got {
		if !slices.IsSorted(letters) {
			t.Errorf("mail of sender %d came out of order: %v", s, letters)
		}
	}
	if mail := m.take(); len(mail) > 0 {
		t.Errorf("%d letters too many", len(mail))
	}
}
