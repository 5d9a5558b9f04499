package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Of checkedEvery answers of a connection the body of one is hashed, beginning with the first.
const checkedEvery = 64

// target is something to GET, with its request made beforehand.
type target struct {
	request []byte
	size    int64
	digest  [sha256.Size]byte
}

// targetsOf gives all targets of one kind, the most popular first.
func (o options) targetsOf(what, method string) ([]target, error) {
	made := func(path string, of blob, headers string) target {
		return target{head(method, path, o.address, -1, headers), int64(len(of.bytes)), of.digest}
	}
	accept := "Accept: " + manifestMedia + "\r\n"
	var found []target
	switch what {
	case "ping":
		return []target{{request: head(method, "/v2/", o.address, -1, ""), size: -1}}, nil
	case "manifest-tag", "manifest-digest", "blob":
		for number := range o.population.images {
			repository, image := o.population.repository(number), o.population.image(number)
			switch what {
			case "manifest-tag":
				found = append(found, made("/v2/"+repository+"/manifests/"+o.population.tag(number), image.manifest, accept))
			case "manifest-digest":
				found = append(found, made("/v2/"+repository+"/manifests/"+image.manifest.name(), image.manifest, accept))
			default:
				found = append(found, made("/v2/"+repository+"/blobs/"+image.layers[0].name(), image.layers[0], ""))
			}
		}
	case "blob-1m":
		for number := range o.population.mediumBlobs() {
			of := mediumBlob(number)
			found = append(found, made("/v2/"+bigRepository+"/blobs/"+of.name(), of, ""))
		}
	case "blob-big":
		of := newBlob(random("big", o.bytes))
		found = append(found, made("/v2/"+bigRepository+"/blobs/"+of.name(), of, ""))
	default:
		return nil, fmt.Errorf("no such thing to get: %q", what)
	}
	return found, nil
}

// getter asks for targets; with all set, for each of them once in random order instead of by popularity.
type getter struct {
	targets   []target
	law       zipf
	order     []int
	next      atomic.Int64
	ends      time.Time
	head      bool
	unchecked bool
}

func newGetter(o options, targets []target) *getter {
	made := &getter{targets: targets, law: newZipf(len(targets)), head: o.method == "HEAD", unchecked: o.unchecked}
	if o.once {
		made.order = halfOf(rand.New(rand.NewPCG(o.seed, 0)).Perm(len(targets)), o.half)
	}
	made.ends = time.Now().Add(o.duration)
	return made
}

// halfOf gives the first half (1) or the second half (2) of an order, or all of it (0). Requests for the first half warm
// what a registry shares, and leave no answer of the second half in its memory.
func halfOf(order []int, half int) []int {
	middle := len(order) / 2
	switch half {
	case 1:
		return order[:middle]
	case 2:
		return order[middle:]
	}
	return order
}

// pick says what to ask for next, and false when there is nothing more.
func (g *getter) pick(chance *rand.Rand) (*target, bool) {
	if g.order == nil {
		return &g.targets[g.law.draw(chance)], true
	}
	number := g.next.Add(1) - 1
	if number >= int64(len(g.order)) {
		return nil, false
	}
	return &g.targets[g.order[number]], true
}

func (g *getter) run(chance *rand.Rand, w *wire, t *tally) {
	for count := 0; ; count++ {
		began := time.Now()
		if !began.Before(g.ends) {
			return
		}
		one, more := g.pick(chance)
		if !more {
			return
		}
		what := discarded
		if count%checkedEvery == 0 && !g.head && !g.unchecked && one.size >= 0 {
			what = hashed
		}
		found, err := w.ask(one.request, nil, what)
		if err == nil {
			err = g.problem(one, found, what)
		}
		if err != nil {
			t.fail(err)
			continue
		}
		received := max(found.size, 0)
		if g.head {
			received = 0
		}
		t.done(time.Since(began), received)
	}
}

func (g *getter) problem(one *target, found answer, what wanted) error {
	switch {
	case found.status != 200:
		return fmt.Errorf("status %d", found.status)
	case g.unchecked || one.size < 0:
		return nil
	case found.size != one.size:
		return fmt.Errorf("%d bytes instead of %d", found.size, one.size)
	case what == hashed && found.digest != one.digest:
		return fmt.Errorf("a body with another digest")
	}
	return nil
}

// get measures GETs or HEADs of one kind.
func get(o options) (result, error) {
	targets, err := o.targetsOf(o.what, o.method)
	if err != nil {
		return result{}, err
	}
	if o.what == "blob-big" {
		// Checked once beforehand: hashing while timed would measure the hash.
		found, err := newWire(o.address).ask(targets[0].request, nil, hashed)
		if err == nil && !o.unchecked && found.digest != targets[0].digest {
			err = fmt.Errorf("status %d and a body with another digest", found.status)
		}
		if err != nil {
			return result{}, err
		}
		o.unchecked = true
	}
	began := cpuSeconds()
	asked := newGetter(o, targets)
	tallies, wall := together(o.connections, o.address, func(number int, w *wire, t *tally) {
		asked.run(o.chance(number), w, t)
	})
	made := summary(tallies, wall)
	made.LoadCPUs = cpuSeconds() - began
	return made, nil
}
