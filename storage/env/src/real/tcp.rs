//! TCP of the system.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam the ban points to"
)]

use std::io;

use tokio::net::{TcpListener, TcpStream};

use crate::network::{Connection, Listener, Network, Pending, passes, told};

/// TCP, with `TCP_NODELAY` on both sides: a reply that waits for Nagle's timer costs 40 ms.
#[derive(Debug)]
pub struct Tcp;

impl Network for Tcp {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| told(&error, "listen on", address))?;
            let taken = listener
                .local_addr()
                .map_err(|error| told(&error, "listen on", address))?;
            let listener: Box<dyn Listener> = Box::new(Taken {
                listener,
                address: taken.to_string(),
            });
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Connection> {
        Box::pin(async move {
            let failed = |error: io::Error| told(&error, "connect to", address);
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            Ok(Connection::new(stream, address))
        })
    }
}

#[derive(Debug)]
struct Taken {
    listener: TcpListener,
    address: String,
}

impl Listener for Taken {
    fn address(&self) -> &str {
        &self.address
    }

    fn accept(&mut self) -> Pending<'_, Connection> {
        Box::pin(async move {
            loop {
                match self.listener.accept().await {
                    // A peer that is gone already has no use for the connection.
                    Ok((stream, peer)) => match stream.set_nodelay(true) {
                        Ok(()) => return Ok(Connection::new(stream, peer.to_string())),
                        Err(_) => continue,
                    },
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) if passes(&error) => return Err(error),
                    Err(error) => return Err(told(&error, "accept on", &self.address)),
                }
            }
        })
    }
}

/// `accept` also tells what befell a connection before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
