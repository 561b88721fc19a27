// Command folderdriver is the test cluster's CSI driver: a volume is a folder, a snapshot is a copy of one.
//
// With -kubeconfig it is the provisioner too; with -registration it registers itself with a kubelet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/tools/clientcmd"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"strongroom.testbed/folderdriver/internal/driver"
	"strongroom.testbed/folderdriver/internal/folders"
	"strongroom.testbed/folderdriver/internal/provisioner"
)

type settings struct {
	name, node, data, socket, registration, kubeconfig string
}

func main() {
	var s settings
	flag.StringVar(&s.name, "name", "folder.csi.strongroom.test", "the driver's name")
	flag.StringVar(&s.node, "node", "node-0", "the name of the node that it serves")
	flag.StringVar(&s.data, "data", "", "folder of the volumes and snapshots")
	flag.StringVar(&s.socket, "socket", "", "path of the CSI socket")
	flag.StringVar(&s.registration, "registration", "", "path of a socket in a kubelet's plugins_registry")
	flag.StringVar(&s.kubeconfig, "kubeconfig", "", "provision the claims of this cluster")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		slog.Error("the folder driver stopped", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or a part fails.
func run(ctx context.Context, s settings) error {
	if s.data == "" || s.socket == "" {
		return errors.New("-data and -socket are needed")
	}
	store, err := folders.Open(s.data)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.data, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	folderDriver := &driver.Driver{Name: s.name, Node: s.node, Endpoint: s.socket, Folders: store}

	services := grpc.NewServer()
	folderDriver.Register(services)
	defer services.Stop()
	if err := serve(services, s.socket, cancel); err != nil {
		return err
	}
	if s.registration != "" {
		registrar := grpc.NewServer()
		registration.RegisterRegistrationServer(registrar, folderDriver)
		defer registrar.Stop() // closes and so removes the socket: the kubelet then takes the driver off its node
		if err := serve(registrar, s.registration, cancel); err != nil {
			return err
		}
	}
	if s.kubeconfig != "" {
		if err := provision(ctx, s, cancel); err != nil {
			return err
		}
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// serve listens on a socket, replacing one that a killed driver left, and fails the whole by cancel.
func serve(server *grpc.Server, socket string, cancel context.CancelCauseFunc) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		if err := server.Serve(listener); err != nil {
			cancel(fmt.Errorf("serve %s: %w", socket, err))
		}
	}()
	return nil
}

// provision starts the provisioner. It talks to the driver through the CSI socket, as any other would.
func provision(ctx context.Context, s settings, cancel context.CancelCauseFunc) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	go func() {
		defer connection.Close()
		if err := provisioner.Run(ctx, config, s.name, csi.NewControllerClient(connection)); err != nil {
			cancel(fmt.Errorf("provisioner: %w", err))
		}
	}()
	return nil
}
