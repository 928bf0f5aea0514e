// A cart that speaks gRPC-Web: `grpcweb server PORT` serves it, `grpcweb client PORT VERSION` calls it over HTTP/1.1
// (version 1) or HTTP/2 in clear text (version 2).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func get(_ context.Context, request *connect.Request[text]) (*connect.Response[text], error) {
	switch request.Msg.Value {
	case "none":
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such cart: é"))
	case "locked":
		return nil, connect.NewError(connect.CodeInternal, nil)
	}
	return connect.NewResponse(wrapperspb.String("cart of " + request.Msg.Value)), nil
}

func watch(_ context.Context, request *connect.Request[text], stream *connect.ServerStream[text]) error {
	for number := range 20 {
		if err := stream.Send(wrapperspb.String(fmt.Sprint(number))); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	if request.Msg.Value == "broken" {
		return connect.NewError(connect.CodeDataLoss, errors.New("the end is missing"))
	}
	return nil
}

func protocols() *http.Protocols {
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	return both
}

func serve(port string) error {
	routes := http.NewServeMux()
	routes.Handle("/shop.Cart/Get", connect.NewUnaryHandler("/shop.Cart/Get", get))
	routes.Handle("/shop.Cart/Watch", connect.NewServerStreamHandler("/shop.Cart/Watch", watch))
	server := http.Server{Addr: "127.0.0.1:" + port, Handler: routes, Protocols: protocols()}
	return server.ListenAndServe()
}

func call(port, version string) error {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	if version == "2" {
		transport.Protocols.SetUnencryptedHTTP2(true)
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	web := &http.Client{Transport: transport}
	client := func(method string, options ...connect.ClientOption) *connect.Client[text, text] {
		options = append(options, connect.WithGRPCWeb())
		return connect.NewClient[text, text](web, "http://127.0.0.1:"+port+"/shop.Cart/"+method, options...)
	}
	said := [][]any{}
	told := func(method string, err error) {
		var refused *connect.Error
		if errors.As(err, &refused) {
			said = append(said, []any{method, int(refused.Code()), refused.Message()})
		} else {
			said = append(said, []any{method, 0, ""})
		}
	}
	for _, words := range []string{"a", "b", "c", "d", "none", "locked"} {
		request := connect.NewRequest(wrapperspb.String(words))
		request.Header().Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		_, err := client("Get").CallUnary(context.Background(), request)
		told("Get", err)
	}
	_, err := client("Get", connect.WithSendGzip()).CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("e")))
	told("Get", err)
	_, err = client("Nothing").CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("f")))
	told("Nothing", err)
	for _, words := range []string{"whole", "broken"} {
		stream, err := client("Watch").CallServerStream(context.Background(), connect.NewRequest(wrapperspb.String(words)))
		if err != nil {
			return err
		}
		for stream.Receive() {
		}
		told("Watch", stream.Err())
	}
	transport.CloseIdleConnections()
	return json.NewEncoder(os.Stdout).Encode(said)
}

func main() {
	var err error
	if os.Args[1] == "server" {
		err = serve(os.Args[2])
	} else {
		err = call(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
