package main

import (
	"slices"
	"sync"
	"syscall"
	"time"
)

// tally counts the answers that one client got.
type tally struct {
	took   []time.Duration
	bytes  int64
	errors int
	first  string
}

func (t *tally) fail(problem error) {
	t.errors++
	if t.first == "" {
		t.first = problem.Error()
	}
}

func (t *tally) done(took time.Duration, bytes int64) {
	t.took = append(t.took, took)
	t.bytes += bytes
}

// result is printed as JSON at the end of a run. Its rates count successes only.
type result struct {
	Done     int     `json:"done"`
	Errors   int     `json:"errors"`
	First    string  `json:"first_error,omitempty"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"`
	Bytes    int64   `json:"bytes"`
	BytesS   float64 `json:"bytes_s"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	Other    float64 `json:"other_rate,omitempty"`
	LoadCPUs float64 `json:"load_cpu_s"`
}

func milliseconds(took time.Duration) float64 { return float64(took.Microseconds()) / 1000 }

// summary puts the tallies of all clients together.
func summary(tallies []*tally, wall time.Duration) result {
	made := result{Seconds: wall.Seconds()}
	var took []time.Duration
	for _, each := range tallies {
		took = append(took, each.took...)
		made.Bytes += each.bytes
		made.Errors += each.errors
		if made.First == "" {
			made.First = each.first
		}
	}
	made.Done = len(took)
	if made.Done > 0 {
		slices.Sort(took)
		made.P50 = milliseconds(took[made.Done/2])
		made.P99 = milliseconds(took[made.Done*99/100])
		made.Max = milliseconds(took[made.Done-1])
	}
	if wall > 0 {
		made.Rate = float64(made.Done) / wall.Seconds()
		made.BytesS = float64(made.Bytes) / wall.Seconds()
	}
	return made
}

// together runs a function in so many goroutines, each with its own connection, and gives their tallies and the time.
func together(count int, address string, run func(number int, w *wire, t *tally)) ([]*tally, time.Duration) {
	var group sync.WaitGroup
	tallies := make([]*tally, count)
	began := time.Now()
	for number := range count {
		tallies[number] = &tally{}
		group.Add(1)
		go func() {
			defer group.Done()
			w := newWire(address)
			defer w.close()
			run(number, w, tallies[number])
		}()
	}
	group.Wait()
	return tallies, time.Since(began)
}

// cpuSeconds is the processor time that this process has used.
func cpuSeconds() float64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
