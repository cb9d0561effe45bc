package main

import "testing"

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.8: 4, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := quantile([]float64{4, 1, 2, 3}, 0.5); got != 2.5 {
		t.Errorf("median of four is %v, want 2.5", got)
	}
}

func TestEstimateHoldsTheValue(t *testing.T) {
	var a, b []float64
	for i := range 60 {
		a, b = append(a, 100+float64(i%10)), append(b, 200+float64(i%10))
	}
	f := estimate(ratio, a, b)
	if f.value != 104.5/204.5 || f.low > f.value || f.high < f.value || f.low == f.high {
		t.Fatalf("ratio is %+v, want 104.5/204.5 within its interval", f)
	}
	if again := estimate(ratio, a, b); again != f {
		t.Fatalf("the same samples gave %+v, then %+v", f, again)
	}
}

func TestVerdicts(t *testing.T) {
	f := figure{value: 10, low: 8, high: 12}
	for limit, want := range map[float64]string{7: "no", 8: "not shown", 10: "not shown", 12: "yes"} {
		if got := f.atMost(limit); got != want {
			t.Errorf("at most %v: %q, want %q", limit, got, want)
		}
	}
	for limit, want := range map[float64]string{8: "yes", 10: "not shown", 12: "not shown", 13: "no"} {
		if got := f.atLeast(limit); got != want {
			t.Errorf("at least %v: %q, want %q", limit, got, want)
		}
	}
}
