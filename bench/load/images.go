package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
)

const (
	layerBytes    = 4 << 10
	mediumBytes   = 1 << 20
	manifestMedia = "application/vnd.oci.image.manifest.v1+json"
	layerMedia    = "application/vnd.oci.image.layer.v1.tar+gzip"
	configMedia   = "application/vnd.oci.image.config.v1+json"
	bigRepository = "big/blobs"
)

// blob is some bytes under their digest.
type blob struct {
	bytes  []byte
	digest [sha256.Size]byte
}

func newBlob(content []byte) blob { return blob{content, sha256.Sum256(content)} }

func (b blob) name() string { return "sha256:" + hex.EncodeToString(b.digest[:]) }

// image is one small image; the same salt and number give the same bytes in every run and registry.
type image struct {
	layers   []blob
	config   blob
	manifest blob
}

// blobs are the layers and the config.
func (i image) blobs() []blob { return append(i.layers[:len(i.layers):len(i.layers)], i.config) }

// random gives bytes that no registry can compress, of one seed text.
func random(seed string, size int) []byte {
	content := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(content)
	return content
}

func newImage(salt string, number, layers int) image {
	seed := salt + "/" + strconv.Itoa(number)
	made := image{}
	var ids, entries bytes.Buffer
	for each := range layers {
		layer := newBlob(random(seed+"/"+strconv.Itoa(each), layerBytes))
		made.layers = append(made.layers, layer)
		if each > 0 {
			ids.WriteByte(',')
			entries.WriteByte(',')
		}
		fmt.Fprintf(&ids, "%q", layer.name())
		fmt.Fprintf(&entries, `{"mediaType":%q,"digest":%q,"size":%d}`, layerMedia, layer.name(), layerBytes)
	}
	made.config = newBlob(fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z",`+
		`"config":{"Cmd":["/bin/app"],"Labels":{"image":%q}},"rootfs":{"type":"layers","diff_ids":[%s]}}`, seed, ids.Bytes()))
	made.manifest = newBlob(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},`+
		`"layers":[%s]}`, manifestMedia, configMedia, made.config.name(), len(made.config.bytes), entries.Bytes()))
	return made
}

// population says which small images the registry holds.
type population struct {
	images       int
	repositories int
}

func (p population) image(number int) image { return newImage("population", number, 1) }

func (p population) repository(number int) string {
	return fmt.Sprintf("team%d/app%d", number%p.repositories%97, number%p.repositories)
}

func (p population) tag(number int) string { return "v" + strconv.Itoa(number/p.repositories) }

// mediumBlobs is how many blobs of 1 MiB belong to so many images.
func (p population) mediumBlobs() int { return max(1, p.images/50) }

// mediumBlob is one of the blobs of 1 MiB.
func mediumBlob(number int) blob {
	return newBlob(random(fmt.Sprintf("medium/%d", number), mediumBytes))
}
