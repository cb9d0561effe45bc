package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// figure is a value with its 95 % interval.
type figure struct{ value, low, high float64 }

// resamples of the bootstrap that gives the intervals.
const resamples = 2000

// estimate computes a statistic of samples, and its interval by drawing the
// samples anew from themselves. The draws are the same in every run.
func estimate(stat func(samples ...[]float64) float64, samples ...[]float64) figure {
	r := rand.New(rand.NewPCG(1, 2))
	drawn := make([][]float64, len(samples))
	for i, s := range samples {
		drawn[i] = make([]float64, len(s))
	}
	values := make([]float64, resamples)
	for n := range values {
		for i, s := range samples {
			for k := range drawn[i] {
				drawn[i][k] = s[r.IntN(len(s))]
			}
		}
		values[n] = stat(drawn...)
	}
	return figure{stat(samples...), quantile(values, 0.025), quantile(values, 0.975)}
}

// quantile of the values by the nearest rank; the median of an even number is
// the mean of the two in the middle.
func quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); q == 0.5 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

func median(s ...[]float64) float64 { return quantile(s[0], 0.5) }

func p99(s ...[]float64) float64 { return quantile(s[0], 0.99) }

// ratio and difference are of the medians.
func ratio(s ...[]float64) float64      { return median(s[0]) / median(s[1]) }
func difference(s ...[]float64) float64 { return median(s[0]) - median(s[1]) }

// ratioToBest is of the first median to the highest of the others.
func ratioToBest(s ...[]float64) float64 { return median(s[0]) / max(median(s[1]), median(s[2])) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// text writes the figure with as many digits as its size deserves.
func (f figure) text(unit string) string {
	format := "%.0f"
	switch {
	case math.Abs(f.value) < 2:
		format = "%.2f"
	case math.Abs(f.value) < 50:
		format = "%.1f"
	}
	out := fmt.Sprintf(format, f.value)
	if unit != "" {
		out += " " + unit
	}
	if f.low != f.high {
		out += fmt.Sprintf(" ("+format+"–"+format+")", f.low, f.high)
	}
	return out
}

// atMost and atLeast say whether a target holds: for the whole interval, for
// none of it, or neither is shown.
func (f figure) atMost(limit float64) string  { return verdict(f.high <= limit, f.low > limit) }
func (f figure) atLeast(limit float64) string { return verdict(f.low >= limit, f.high < limit) }

func verdict(yes, no bool) string {
	switch {
	case yes:
		return "yes"
	case no:
		return "no"
	}
	return "not shown"
}

func mean(s ...[]float64) float64 {
	sum := 0.0
	for _, v := range s[0] {
		sum += v
	}
	return sum / float64(len(s[0]))
}
