//! Conversations that begin with the same message at the same time: none is forgotten for another.

use http::{StatusCode, Version};
use serde_json::{Value, json};
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

/// A turn of an agent in a directory; gives the conversation with the answer.
async fn turn(client: &mut Client, directory: &str, mut messages: Vec<Value>) -> Vec<Value> {
    let manual = "Say what you do before you do it, in one sentence.\\n".repeat(400);
    let system = format!("You are an agent.\nWorking directory: {directory}\n{manual}");
    let body = json!({ "model": "claude-haiku-4-5", "max_tokens": 50, "messages": messages, "system": system });
    let (status, answer) = client.ask(Api::Messages, &body).await;
    assert_eq!(status, StatusCode::OK, "{answer:?}");
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    messages.push(json!({ "role": "assistant", "content": answer["content"] }));
    messages
}

fn says(text: &str) -> Value {
    json!({ "role": "user", "content": format!("{text} [[sim: tokens=5]]") })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_begin_at_once_each_goes_on_as_it_began() {
    const AGENTS: usize = 10;
    let simulator = Simulator::start(Options::default()).unwrap();
    let cache = Cache {
        mode: CacheMode::Rewrite,
        ..Cache::default()
    };
    let config = Config {
        cache,
        ..Config::default()
    };
    let world = World::start(&[simulator.ca_pem()], config);
    let mut clients = Vec::new();
    for _ in 0..AGENTS {
        let (addr, host) = (simulator.addr(), Api::Messages.host());
        clients.push(Client::connect(&world, addr, host, Version::HTTP_11).await);
    }
    // That the directory is to be moved.
    for directory in ["/a", "/b"] {
        turn(&mut clients[0], directory, vec![says(directory)]).await;
    }
    for round in 0..5 {
        let agents = clients.drain(..).enumerate().map(|(index, mut client)| {
            let task = says(&format!("Round {round}."));
            tokio::spawn(async move {
                let messages = turn(&mut client, &format!("/agent/{index}/"), vec![task]).await;
                (client, messages)
            })
        });
        let agents: Vec<_> = agents.collect();
        for (index, agent) in agents.into_iter().enumerate() {
            let (client, mut messages) = agent.await.unwrap();
            clients.push(client);
            messages.push(says("Go on."));
            let directory = format!("/agent/{index}/");
            turn(&mut clients[index], &directory, messages).await;
            // First turns of other agents may have come since.
            let received = simulator.received().into_iter().rev();
            let mut sent = received.map(|one| String::from_utf8(one.body.to_vec()).unwrap());
            let sent = sent.find(|sent| sent.contains("Go on.")).unwrap();
            assert!(sent.contains("[see <working-directory>"), "{sent}");
            assert_eq!(sent.matches("/agent/").count(), 1, "{sent}");
            assert!(sent.contains(&directory), "{sent}");
        }
    }
}
