package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// serveFiles answers GETs of blobs from a folder, DIR/ab/<hex>.0, by sendfile and with no other work: what the
// same bytes cost without a registry. It serves until it is ended.
func serveFiles(address, folder string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			input := bufio.NewReader(conn)
			for serveFile(conn.(*net.TCPConn), input, folder) == nil {
			}
		}()
	}
}

func serveFile(conn *net.TCPConn, input *bufio.Reader, folder string) error {
	first, err := input.ReadString('\n')
	for line := first; err == nil && line != "\r\n"; {
		line, err = input.ReadString('\n')
	}
	if err != nil {
		return err
	}
	_, hex, found := strings.Cut(strings.TrimSuffix(first, " HTTP/1.1\r\n"), "/blobs/sha256:")
	if !found || len(hex) != 64 {
		_, err = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	file, err := os.Open(filepath.Join(folder, hex[:2], hex+".0"))
	if err != nil {
		return err
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", about.Size()); err != nil {
		return err
	}
	_, err = conn.ReadFrom(io.LimitReader(file, about.Size()))
	return err
}
