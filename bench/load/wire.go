package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

const bufferBytes = 256 << 10

// wire is one kept-alive connection that speaks just enough HTTP/1.1: net/http would cost the load several times more
// processor time than the registries that it measures.
type wire struct {
	address string
	conn    net.Conn
	buffer  []byte
	from    int
	to      int
}

// answer is what came back; body only where it was asked for.
type answer struct {
	status   int
	size     int64
	location string
	body     []byte
	digest   [sha256.Size]byte
}

// wanted says what is done with the body of an answer.
type wanted int

const (
	discarded wanted = iota
	hashed
	kept
)

func newWire(address string) *wire {
	return &wire{address: address, buffer: make([]byte, bufferBytes)}
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// head gives the bytes of a request without its body; size is that of the body, -1 for none.
func head(method, path, host string, size int64, headers string) []byte {
	text := method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + headers
	if size >= 0 {
		text += "Content-Length: " + strconv.FormatInt(size, 10) + "\r\n"
	}
	return []byte(text + "\r\n")
}

// ask sends a request and reads its answer whole. After an error the connection is made anew by the next call.
func (w *wire) ask(request, body []byte, what wanted) (answer, error) {
	found, closing, err := w.exchange(request, body, what)
	if err != nil || closing {
		w.close()
	}
	return found, err
}

func (w *wire) exchange(request, body []byte, what wanted) (answer, bool, error) {
	if w.conn == nil {
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			return answer{}, true, err
		}
		w.conn, w.from, w.to = conn, 0, 0
	}
	if len(body) > 0 && len(body) <= bufferBytes {
		request, body = append(request[:len(request):len(request)], body...), nil
	}
	if _, err := w.conn.Write(request); err != nil {
		return answer{}, true, err
	}
	if len(body) > 0 {
		if _, err := w.conn.Write(body); err != nil {
			return answer{}, true, err
		}
	}
	found, chunked, closing, err := w.readHead()
	if err != nil {
		return found, true, err
	}
	bodiless := bytes.HasPrefix(request, []byte("HEAD ")) || found.status == 204
	if !bodiless {
		err = w.readBody(&found, chunked, what)
	}
	return found, closing, err
}

// fill reads more into the buffer, behind what is not consumed yet.
func (w *wire) fill() error {
	if w.from > 0 {
		w.to = copy(w.buffer, w.buffer[w.from:w.to])
		w.from = 0
	}
	if w.to == len(w.buffer) {
		return errors.New("the head of an answer is too long")
	}
	n, err := w.conn.Read(w.buffer[w.to:])
	w.to += n
	if n > 0 {
		return nil
	}
	return err
}

func (w *wire) readHead() (found answer, chunked, closing bool, err error) {
	// A deadline for each answer would cost a timer each; a stuck registry is ended by the time limit of the whole run.
	end := -1
	for {
		if end = bytes.Index(w.buffer[w.from:w.to], []byte("\r\n\r\n")); end >= 0 {
			break
		}
		if err = w.fill(); err != nil {
			return found, false, true, err
		}
	}
	lines := w.buffer[w.from : w.from+end+2]
	w.from += end + 4
	if len(lines) < 14 || lines[8] != ' ' {
		return found, false, true, fmt.Errorf("not an answer of HTTP: %q", lines)
	}
	if found.status, err = strconv.Atoi(string(lines[9:12])); err != nil {
		return found, false, true, err
	}
	found.size = -1
	lines = lines[bytes.IndexByte(lines, '\n')+1:]
	for len(lines) > 0 {
		stop := bytes.IndexByte(lines, '\n')
		line := lines[:stop-1]
		lines = lines[stop+1:]
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue
		}
		name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
		// Compared by length first: most headers of most answers are none of these.
		switch {
		case colon == 14 && bytes.EqualFold(name, []byte("content-length")):
			found.size, err = strconv.ParseInt(string(value), 10, 64)
		case colon == 8 && bytes.EqualFold(name, []byte("location")):
			found.location = string(value)
		case colon == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case colon == 10 && bytes.EqualFold(name, []byte("connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
	return found, chunked, closing, err
}

func (w *wire) readBody(found *answer, chunked bool, what wanted) error {
	sink := newSink(what)
	if chunked {
		size, err := w.readChunks(sink)
		found.size = size
		if err != nil {
			return err
		}
	} else {
		if found.size < 0 {
			return errors.New("an answer with neither length nor chunks")
		}
		if err := w.take(found.size, sink); err != nil {
			return err
		}
	}
	found.body, found.digest = sink.body, sink.sum()
	return nil
}

func (w *wire) readChunks(sink *sink) (int64, error) {
	total := int64(0)
	for {
		line, err := w.line()
		if err != nil {
			return total, err
		}
		size, err := strconv.ParseInt(line, 16, 64)
		if err != nil {
			return total, err
		}
		total += size
		if err := w.take(size, sink); err != nil {
			return total, err
		}
		if _, err := w.line(); err != nil {
			return total, err
		}
		if size == 0 {
			return total, nil
		}
	}
}

func (w *wire) line() (string, error) {
	for {
		if stop := bytes.Index(w.buffer[w.from:w.to], []byte("\r\n")); stop >= 0 {
			line := string(w.buffer[w.from : w.from+stop])
			w.from += stop + 2
			return line, nil
		}
		if err := w.fill(); err != nil {
			return "", err
		}
	}
}

// take consumes so many bytes of a body.
func (w *wire) take(size int64, sink *sink) error {
	for size > 0 {
		if w.from == w.to {
			w.from, w.to = 0, 0
			if err := w.fill(); err != nil {
				if errors.Is(err, io.EOF) {
					return io.ErrUnexpectedEOF
				}
				return err
			}
		}
		n := min(int64(w.to-w.from), size)
		sink.write(w.buffer[w.from : w.from+int(n)])
		w.from += int(n)
		size -= n
	}
	return nil
}
