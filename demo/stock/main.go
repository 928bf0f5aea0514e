// The shop's stock service: it answers and calls nobody.
// Paths: /reserve/ID, /price/ID, /slow/ID?ms=, /fail/ID. With SHOP_TRUTH_DIR set, it writes a line of JSON a request.
package main

import (
	"encoding/json"
	"hash/crc32"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const maxSleep = 10 * time.Second

type entry struct {
	Service string     `json:"service"`
	Method  string     `json:"method"`
	Path    string     `json:"path"`
	Status  int        `json:"status"`
	Calls   []struct{} `json:"calls"`
	Start   int64      `json:"start_us"`
	End     int64      `json:"end_us"`
	Pid     int        `json:"pid"`
}

type stock struct {
	lock  sync.Mutex
	truth *os.File
}

func (s *stock) answer(r *http.Request) (int, map[string]any) {
	what, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch what {
	case "reserve":
		return http.StatusOK, map[string]any{"id": id, "reserved": 1}
	case "price":
		return http.StatusOK, map[string]any{"id": id, "price": 100 + crc32.ChecksumIEEE([]byte(id))%900}
	case "slow":
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		wait := time.Duration(ms) * time.Millisecond
		if err != nil || wait < 0 || wait > maxSleep {
			return http.StatusBadRequest, map[string]any{"error": "ms is a whole number up to 10000"}
		}
		time.Sleep(wait)
		return http.StatusOK, map[string]any{"id": id, "ms": ms}
	case "fail":
		return http.StatusServiceUnavailable, map[string]any{"error": id + " is out of stock"}
	}
	return http.StatusNotFound, map[string]any{"error": "the stock has /reserve/ID, /price/ID, /slow/ID and /fail/ID"}
}

func (s *stock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now().UnixMicro()
	status, value := s.answer(r)
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if s.truth != nil {
		line, _ := json.Marshal(entry{"stock", r.Method, r.RequestURI, status, []struct{}{}, start, time.Now().UnixMicro(), os.Getpid()})
		s.lock.Lock()
		_, err = s.truth.Write(append(line, '\n'))
		s.lock.Unlock()
		if err != nil {
			log.Print(err)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err = w.Write(body); err != nil {
		log.Print(err)
	}
}

func main() {
	s := &stock{}
	if folder := os.Getenv("SHOP_TRUTH_DIR"); folder != "" {
		file, err := os.OpenFile(filepath.Join(folder, "stock.jsonl"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			log.Fatal(err)
		}
		s.truth = file
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("SHOP_STOCK_PORT"), s))
}
