package pod

import "testing"

// BenchmarkHeldUp is what people's view of a start costs with each plan: while the
// pod starts, and once it is up.
func BenchmarkHeldUp(b *testing.B) {
	w := newWorld(nil)
	w.verbPod(args{}, []string{"main app", "main other"})
	w.start()
	starting := w.pod
	w.verbRun(args{}, nil)
	w.verbTold(args{}, nil)
	for name, p := range map[string]Pod{"starting": starting, "up": w.pod} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				HeldUp(p, w.node, w.now)
			}
		})
		b.Run(name+"-plan", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Plan(p, w.node, w.now)
			}
		})
	}
}
