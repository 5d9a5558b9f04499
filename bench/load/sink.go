package main

import (
	"crypto/sha256"
	"hash"
)

// sink takes the bytes of a body and keeps, hashes or drops them.
type sink struct {
	what  wanted
	body  []byte
	state hash.Hash
}

func newSink(what wanted) *sink {
	made := &sink{what: what}
	if what == hashed {
		made.state = sha256.New()
	}
	return made
}

func (s *sink) write(block []byte) {
	switch s.what {
	case hashed:
		s.state.Write(block)
	case kept:
		s.body = append(s.body, block...)
	}
}

func (s *sink) sum() (digest [sha256.Size]byte) {
	if s.what == hashed {
		s.state.Sum(digest[:0])
	}
	return digest
}
