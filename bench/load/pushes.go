package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pushRepositories = 100
	bigPushesMax     = 3
	pushedLayers     = 3
	// bench/registries/history.py looks for what a storm did to this tag.
	stormRepository = "storm/ci-"
	stormTag        = "latest"
)

// expect asks and fails unless the status is the one wanted.
func (w *wire) expect(status int, method, path string, body []byte, headers string) (answer, error) {
	size := int64(-1)
	if method != "HEAD" && method != "GET" {
		size = int64(len(body))
	}
	found, err := w.ask(head(method, path, w.address, size, headers), body, kept)
	if err == nil && found.status != status {
		err = fmt.Errorf("%s %s: status %d instead of %d: %.200s", method, path, found.status, status, found.body)
	}
	return found, err
}

// upload sends one blob: POST, then PATCH and PUT as docker does, or PUT alone with the bytes.
func (w *wire) upload(repository string, content blob, patched bool) error {
	started, err := w.expect(202, "POST", "/v2/"+repository+"/blobs/uploads/", nil, "")
	if err != nil {
		return err
	}
	const octets = "Content-Type: application/octet-stream\r\n"
	location, rest := started.location, content.bytes
	if patched {
		sent, err := w.expect(202, "PATCH", pathOf(location), content.bytes, octets)
		if err != nil {
			return err
		}
		location, rest = sent.location, nil
	}
	_, err = w.expect(201, "PUT", withDigest(location, content.name()), rest, octets)
	return err
}

// pathOf gives path and query of a Location, which registries write with and without their host.
func pathOf(location string) string {
	if strings.HasPrefix(location, "/") {
		return location
	}
	parsed, err := url.Parse(location)
	if err != nil {
		return location
	}
	return parsed.RequestURI()
}

func withDigest(location, digest string) string {
	path := pathOf(location)
	if strings.Contains(path, "?") {
		return path + "&digest=" + digest
	}
	return path + "?digest=" + digest
}

// push sends an image as a client does: HEAD of each blob, its upload, then the manifest under its tag.
func (w *wire) push(repository, tag string, of image, patched bool) error {
	for _, each := range of.blobs() {
		if _, err := w.expect(404, "HEAD", "/v2/"+repository+"/blobs/"+each.name(), nil, ""); err != nil {
			return err
		}
		if err := w.upload(repository, each, patched); err != nil {
			return err
		}
	}
	return w.name(repository, tag, of)
}

// pushAgain sends an image that the registry has: HEAD of each blob, then the manifest under its tag.
func (w *wire) pushAgain(repository, tag string, of image) error {
	for _, each := range of.blobs() {
		if _, err := w.expect(200, "HEAD", "/v2/"+repository+"/blobs/"+each.name(), nil, ""); err != nil {
			return err
		}
	}
	return w.name(repository, tag, of)
}

// name puts the manifest of an image under a tag.
func (w *wire) name(repository, tag string, of image) error {
	_, err := w.expect(201, "PUT", "/v2/"+repository+"/manifests/"+tag, of.manifest.bytes, "Content-Type: "+manifestMedia+"\r\n")
	return err
}

// pull fetches an image by its tag: manifest, config, layers.
func (w *wire) pull(repository, tag string, of image) (int64, error) {
	total := int64(0)
	ask := func(path string, expected blob, headers string) error {
		found, err := w.expect(200, "GET", path, nil, headers)
		if err == nil && found.size != int64(len(expected.bytes)) {
			err = fmt.Errorf("GET %s: %d bytes instead of %d", path, found.size, len(expected.bytes))
		}
		total += found.size
		return err
	}
	err := ask("/v2/"+repository+"/manifests/"+tag, of.manifest, "Accept: "+manifestMedia+"\r\n")
	for _, each := range of.blobs() {
		if err == nil {
			err = ask("/v2/"+repository+"/blobs/"+each.name(), each, "")
		}
	}
	return total, err
}

// pusher gives each push an image and a tag that were never pushed before.
type pusher struct {
	salt    string
	patched bool
	next    atomic.Int64
}

func (p *pusher) one(w *wire) error {
	number := int(p.next.Add(1))
	repository := fmt.Sprintf("pushed/%s-%d", p.salt, number%pushRepositories)
	return w.push(repository, "t"+strconv.Itoa(number), newImage(p.salt, number, pushedLayers), p.patched)
}

// pushImages measures pushes of small images, or of pulls and pushes in the given share.
func pushImages(o options) (result, error) {
	images := make([]image, o.population.images)
	if o.pulls > 0 {
		for number := range images {
			images[number] = o.population.image(number)
		}
	}
	law, pushes := newZipf(len(images)), &pusher{salt: o.salt, patched: o.patched}
	return o.repeat(func(chance *rand.Rand, w *wire) (int64, error) {
		if chance.Float64() < o.pulls {
			which := law.draw(chance)
			return w.pull(o.population.repository(which), o.population.tag(which), images[which])
		}
		return 0, pushes.one(w)
	}), nil
}

// repeat lets all clients do something again and again until the time is over; it says how many bytes were received.
func (o options) repeat(one func(chance *rand.Rand, w *wire) (int64, error)) result {
	used, ends := cpuSeconds(), time.Now().Add(o.duration)
	tallies, wall := together(o.connections, o.address, func(number int, w *wire, t *tally) {
		chance := o.chance(number)
		for began := time.Now(); began.Before(ends); began = time.Now() {
			received, err := one(chance, w)
			if err != nil {
				t.fail(err)
				continue
			}
			t.done(time.Since(began), received)
		}
	})
	made := summary(tallies, wall)
	made.LoadCPUs = cpuSeconds() - used
	return made
}

// pushStorm measures pushes of new images to one repository, each of which moves the same tag.
func pushStorm(o options) (result, error) {
	repository, next := stormRepository+o.salt, atomic.Int64{}
	made := o.repeat(func(_ *rand.Rand, w *wire) (int64, error) {
		number := int(next.Add(1))
		return 0, w.push(repository, stormTag, newImage("storm-"+o.salt, number, pushedLayers), o.patched)
	})
	w := newWire(o.address)
	defer w.close()
	_, err := w.expect(200, "GET", "/v2/"+repository+"/manifests/"+stormTag, nil, "Accept: "+manifestMedia+"\r\n")
	return made, err
}

// pushAgain measures pushes of images that the registry holds as they are.
func pushAgain(o options) (result, error) {
	images := make([]image, o.population.images)
	for number := range images {
		images[number] = o.population.image(number)
	}
	law := newZipf(len(images))
	return o.repeat(func(chance *rand.Rand, w *wire) (int64, error) {
		which := law.draw(chance)
		return 0, w.pushAgain(o.population.repository(which), o.population.tag(which), images[which])
	}), nil
}

// getWhilePushing measures GETs while other clients push elsewhere; the rate of the pushes stands beside.
func getWhilePushing(o options) (result, error) {
	targets, err := o.targetsOf(o.what, o.method)
	if err != nil {
		return result{}, err
	}
	began, pushes, asked := cpuSeconds(), &pusher{salt: o.salt, patched: o.patched}, newGetter(o, targets)
	var pushed, read []*tally
	var wall, pushing time.Duration
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		pushed, pushing = together(o.pushers, o.address, func(_ int, w *wire, t *tally) {
			for began := time.Now(); began.Before(asked.ends); began = time.Now() {
				if err := pushes.one(w); err != nil {
					t.fail(err)
					continue
				}
				t.done(time.Since(began), 0)
			}
		})
	}()
	read, wall = together(o.connections, o.address, func(number int, w *wire, t *tally) {
		asked.run(o.chance(number), w, t)
	})
	group.Wait()
	made, beside := summary(read, wall), summary(pushed, pushing)
	made.Errors += beside.Errors
	if made.First == "" {
		made.First = beside.First
	}
	made.Other = beside.Rate
	made.LoadCPUs = cpuSeconds() - began
	return made, nil
}

// pushBlob measures one stream that uploads large blobs, each with other bytes; making and hashing them is not timed.
func pushBlob(o options) (result, error) {
	content := random(o.salt, o.bytes)
	seen, began, w := &tally{}, cpuSeconds(), newWire(o.address)
	defer w.close()
	pushing := time.Duration(0)
	for number := range bigPushesMax {
		copy(content, fmt.Sprintf("%s/%d", o.salt, number))
		one := newBlob(content)
		began := time.Now()
		err := w.upload(bigRepository, one, o.patched)
		took := time.Since(began)
		pushing += took
		if err == nil {
			var found answer
			found, err = w.expect(200, "HEAD", "/v2/"+bigRepository+"/blobs/"+one.name(), nil, "")
			if err == nil && found.size != int64(o.bytes) {
				err = fmt.Errorf("%d bytes are there instead of %d", found.size, o.bytes)
			}
		}
		if err != nil {
			seen.fail(err)
			break
		}
		seen.done(took, int64(o.bytes))
		if pushing > o.duration {
			break
		}
	}
	made := summary([]*tally{seen}, pushing)
	made.LoadCPUs = cpuSeconds() - began
	return made, nil
}

// populate pushes what the GETs ask for.
func populate(o options) (result, error) {
	images, medium := atomic.Int64{}, atomic.Int64{}
	tallies, wall := together(o.connections, o.address, func(_ int, w *wire, t *tally) {
		for number := int(images.Add(1) - 1); number < o.population.images && t.errors == 0; number = int(images.Add(1) - 1) {
			began := time.Now()
			if err := w.push(o.population.repository(number), o.population.tag(number), o.population.image(number), true); err != nil {
				t.fail(err)
				return
			}
			t.done(time.Since(began), 0)
		}
		for number := int(medium.Add(1) - 1); number < o.population.mediumBlobs(); number = int(medium.Add(1) - 1) {
			if err := w.upload(bigRepository, mediumBlob(number), true); err != nil {
				t.fail(err)
				return
			}
		}
	})
	made := summary(tallies, wall)
	if err := newWire(o.address).upload(bigRepository, newBlob(random("big", o.bytes)), true); err != nil {
		return made, err
	}
	return made, nil
}

func (o options) chance(number int) *rand.Rand {
	return rand.New(rand.NewPCG(o.seed, uint64(number)+1))
}
