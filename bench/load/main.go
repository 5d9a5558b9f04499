// Command load puts work on a registry and prints the result as one line of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

// options are the flags of a run.
type options struct {
	address     string
	population  population
	connections int
	pushers     int
	duration    time.Duration
	what        string
	method      string
	once        bool
	half        int
	unchecked   bool
	salt        string
	bytes       int
	patched     bool
	pulls       float64
	seed        uint64
	folder      string
}

const usage = "usage: load get|push-blob|push-images|push-storm|push-again|get-while-pushing|populate|serve-files [FLAGS]"

func parse(arguments []string) options {
	o := options{}
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&o.address, "address", "127.0.0.1:5000", "host and port of the registry")
	flags.IntVar(&o.population.images, "images", 10000, "small images that the registry holds")
	flags.IntVar(&o.population.repositories, "repositories", 1000, "repositories that they are in")
	flags.IntVar(&o.connections, "connections", 16, "clients at once")
	flags.IntVar(&o.pushers, "pushers", 8, "clients that push beside")
	flags.DurationVar(&o.duration, "duration", 5*time.Second, "how long the load lasts")
	flags.StringVar(&o.what, "what", "manifest-tag", "ping, manifest-tag, manifest-digest, blob, blob-1m or blob-big")
	flags.StringVar(&o.method, "method", "GET", "GET or HEAD")
	flags.BoolVar(&o.once, "once", false, "ask for each thing once, in random order")
	flags.IntVar(&o.half, "half", 0, "with -once: the first or the second half of them (1 or 2), 0 for all")
	flags.BoolVar(&o.unchecked, "unchecked", false, "look at the status alone, for servers that only play a registry")
	flags.StringVar(&o.salt, "salt", "", "text that makes pushed bytes differ from those of other runs")
	flags.IntVar(&o.bytes, "bytes", 256<<20, "size of a large blob")
	flags.BoolVar(&o.patched, "patch", false, "send the bytes of blobs by PATCH before the PUT, instead of with it")
	flags.Float64Var(&o.pulls, "pulls", 0, "share of pulls among pushes")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of what is asked for at random")
	flags.StringVar(&o.folder, "folder", "", "blobs that serve-files serves")
	flags.Parse(arguments)
	return o
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	o := parse(os.Args[2:])
	modes := map[string]func(options) (result, error){
		"get": get, "push-blob": pushBlob, "push-images": pushImages, "push-storm": pushStorm, "push-again": pushAgain,
		"get-while-pushing": getWhilePushing, "populate": populate,
	}
	var made result
	var err error
	if os.Args[1] == "serve-files" {
		err = serveFiles(o.address, o.folder)
	} else if mode, known := modes[os.Args[1]]; known {
		// The clients of one registry need no second processor: it is the registry's.
		runtime.GOMAXPROCS(1)
		made, err = mode(o)
	} else {
		err = fmt.Errorf("%s", usage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(made)
}
