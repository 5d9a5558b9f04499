// Sends bodies that are refused, as net/http does, and after each one an innocent request by the same client.
//
// Arguments: the address, the size of a body, how many, how many at once, and "chunked" or "length".
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
)

type result struct {
	Answered int    `json:"answered"`
	Lost     int    `json:"lost"`
	Harmed   int    `json:"harmed"`
	First    string `json:"first"`
}

func main() {
	size, count, atOnce := number(os.Args[2]), number(os.Args[3]), number(os.Args[4])
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
	body := bytes.Repeat([]byte("x"), size)
	var total result
	var mutex sync.Mutex
	var group sync.WaitGroup
	work := make(chan bool)
	for range atOnce {
		group.Add(1)
		go func() {
			defer group.Done()
			for range work {
				lost := refused(client, body)
				harmed := innocent(client)
				mutex.Lock()
				total.add(lost, harmed)
				mutex.Unlock()
			}
		}()
	}
	for range count {
		work <- true
	}
	close(work)
	group.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(total)
}

func (total *result) add(lost, harmed error) {
	if lost == nil {
		total.Answered++
	} else {
		total.Lost++
	}
	if harmed != nil {
		total.Harmed++
	}
	for _, each := range []error{lost, harmed} {
		if each != nil && total.First == "" {
			total.First = each.Error()
		}
	}
}

func number(text string) int {
	value, problem := strconv.Atoi(text)
	if problem != nil {
		panic(problem)
	}
	return value
}

func refused(client *http.Client, body []byte) error {
	request, _ := http.NewRequest("PUT", "http://"+os.Args[1]+os.Args[6], bytes.NewReader(body))
	if os.Args[5] == "chunked" {
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
	}
	return send(client, request, 404, "BLOB_UPLOAD_UNKNOWN")
}

func innocent(client *http.Client) error {
	request, _ := http.NewRequest("POST", "http://"+os.Args[1]+"/v2/", nil)
	return send(client, request, 405, "UNSUPPORTED")
}

func send(client *http.Client, request *http.Request, status int, code string) error {
	answer, problem := client.Do(request)
	if problem != nil {
		return problem
	}
	defer func() { _ = answer.Body.Close() }()
	text, problem := io.ReadAll(answer.Body)
	if problem != nil {
		return problem
	}
	var found struct{ Errors []struct{ Code string } }
	if problem := json.Unmarshal(text, &found); problem != nil {
		return problem
	}
	if answer.StatusCode != status || len(found.Errors) != 1 || found.Errors[0].Code != code {
		return fmt.Errorf("%d %s", answer.StatusCode, text)
	}
	return nil
}
