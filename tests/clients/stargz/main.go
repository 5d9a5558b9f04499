// Reads the beginning of a blob as stargz-snapshotter does for a container that was started before its image was there:
// every second chunk by itself, then all of it at once, for which the fetcher asks for the missing chunks in one GET.
// Writes what it read to standard output.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/cache"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	host := flag.String("host", "", "HOST:PORT of the registry, spoken to by plain HTTP")
	repository := flag.String("repository", "", "name of the repository")
	blobDigest := flag.String("digest", "", "digest of the blob")
	chunk := flag.Int64("chunk", 50000, "bytes of a chunk")
	pairs := flag.Int64("pairs", 10, "half the number of chunks to read")
	flag.Parse()
	if err := read(*host, *repository, digest.Digest(*blobDigest), *chunk, *pairs); err != nil {
		log.Fatal(err)
	}
}

func read(host, repository string, blobDigest digest.Digest, chunk, pairs int64) error {
	name, err := reference.Parse(host + "/" + repository + "@" + blobDigest.String())
	if err != nil {
		return err
	}
	hosts := func(reference.Spec) ([]docker.RegistryHost, error) {
		client := &http.Client{Transport: http.DefaultTransport}
		return []docker.RegistryHost{{Client: client, Host: host, Scheme: "http", Path: "/v2"}}, nil
	}
	resolver := remote.NewResolver(config.BlobConfig{ChunkSize: chunk}, nil)
	blob, err := resolver.Resolve(context.Background(), hosts, name, ocispec.Descriptor{Digest: blobDigest}, cache.NewMemoryCache())
	if err != nil {
		return err
	}
	defer blob.Close()
	one := make([]byte, chunk)
	for each := int64(0); each < pairs; each++ {
		if _, err := blob.ReadAt(one, 2*each*chunk); err != nil {
			return err
		}
	}
	all := make([]byte, 2*pairs*chunk)
	if _, err := blob.ReadAt(all, 0); err != nil {
		return err
	}
	_, err = os.Stdout.Write(all)
	return err
}
